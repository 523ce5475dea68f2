"""What the study of segmentation is made of: scenes, networks, scores, table and figure."""
