"""Parts of the study of a transfer from Rotterdam to the German Breast Cancer Study Group."""
