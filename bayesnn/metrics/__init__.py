"""Tensors to tensors: how good a prediction is, how far that is known, and where its uncertainty
comes from.

Plain arrays in (tensors, NumPy arrays or lists), so that any library's predictions can be judged.
Metrics of a test set return an `Estimate` with standard error and interval; quantities of single
examples return tensors [batch]. Information is in nats, a larger score means more uncertain, and
out of distribution is the positive class.
"""

from bayesnn.metrics._binning import CalibrationBins as CalibrationBins
from bayesnn.metrics._checks import Array as Array
from bayesnn.metrics.brier import BrierDecomposition as BrierDecomposition
from bayesnn.metrics.brier import brier_decomposition as brier_decomposition
from bayesnn.metrics.calibration import CalibrationError as CalibrationError
from bayesnn.metrics.calibration import calibration_bins as calibration_bins
from bayesnn.metrics.calibration import classwise_ece as classwise_ece
from bayesnn.metrics.calibration import ece as ece
from bayesnn.metrics.calibration import mce as mce
from bayesnn.metrics.classification import accuracy as accuracy
from bayesnn.metrics.classification import brier as brier
from bayesnn.metrics.classification import log_score as log_score
from bayesnn.metrics.classification import nll as nll
from bayesnn.metrics.disagreement import disagreement as disagreement
from bayesnn.metrics.estimate import Estimate as Estimate
from bayesnn.metrics.estimate import mean_estimate as mean_estimate
from bayesnn.metrics.information import Decomposition as Decomposition
from bayesnn.metrics.information import decompose_entropy as decompose_entropy
from bayesnn.metrics.information import decompose_variance as decompose_variance
from bayesnn.metrics.information import entropy as entropy
from bayesnn.metrics.information import mutual_information as mutual_information
from bayesnn.metrics.intervals import central_interval as central_interval
from bayesnn.metrics.intervals import coverage as coverage
from bayesnn.metrics.intervals import interval_score as interval_score
from bayesnn.metrics.intervals import width as width
from bayesnn.metrics.ranking import aupr as aupr
from bayesnn.metrics.ranking import auroc as auroc
from bayesnn.metrics.ranking import fpr95 as fpr95
from bayesnn.metrics.regression import crps as crps
from bayesnn.metrics.regression import rmse as rmse
from bayesnn.metrics.selective import RiskCoverage as RiskCoverage
from bayesnn.metrics.selective import aurc as aurc
from bayesnn.metrics.selective import raulc as raulc
from bayesnn.metrics.selective import risk_coverage as risk_coverage
from bayesnn.metrics.spiegelhalter import SpiegelhalterTest as SpiegelhalterTest
from bayesnn.metrics.spiegelhalter import spiegelhalter as spiegelhalter
