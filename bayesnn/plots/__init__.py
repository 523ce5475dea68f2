"""Pictures of predictions and their quality: Matplotlib axes in (or a new figure), axes out.

Nothing is imported from Matplotlib before a figure is drawn, and its global settings are never
touched.
"""

from bayesnn.plots.bands import predictive_bands as predictive_bands
from bayesnn.plots.coverage import coverage_curve as coverage_curve
from bayesnn.plots.histograms import uncertainty_histograms as uncertainty_histograms
from bayesnn.plots.intervals import prediction_intervals as prediction_intervals
from bayesnn.plots.pit import pit_histogram as pit_histogram
from bayesnn.plots.prior_posterior import prior_and_posterior as prior_and_posterior
from bayesnn.plots.rejection import rejection_curve as rejection_curve
from bayesnn.plots.reliability import reliability_diagram as reliability_diagram
from bayesnn.plots.training import TrainingHistory as TrainingHistory
from bayesnn.plots.training import training_curve as training_curve
