"""Transfer studies: a source's predictions recalibrated to a target, beside the usual
alternatives, judged alike.
"""

from bayesnn.transfer.baselines import conformal as conformal
from bayesnn.transfer.baselines import pooled as pooled
from bayesnn.transfer.baselines import recalibrated as recalibrated
from bayesnn.transfer.baselines import source_only as source_only
from bayesnn.transfer.baselines import target_only as target_only
from bayesnn.transfer.data import TransferData as TransferData
from bayesnn.transfer.designs import linear_design as linear_design
from bayesnn.transfer.networks import fine_tuned as fine_tuned
from bayesnn.transfer.networks import last_layer as last_layer
from bayesnn.transfer.networks import last_layer_laplace as last_layer_laplace
from bayesnn.transfer.predictions import ConformalQuantiles as ConformalQuantiles
from bayesnn.transfer.predictions import DrawnQuantiles as DrawnQuantiles
from bayesnn.transfer.predictions import NormalQuantiles as NormalQuantiles
from bayesnn.transfer.predictions import Prediction as Prediction
from bayesnn.transfer.predictions import Probabilities as Probabilities
from bayesnn.transfer.predictions import Quantiles as Quantiles
from bayesnn.transfer.predictions import interval as interval
from bayesnn.transfer.recalibration import recast as recast
from bayesnn.transfer.scores import crps_of_quantiles as crps_of_quantiles
from bayesnn.transfer.scores import scores as scores
from bayesnn.transfer.sources import linear_source as linear_source
from bayesnn.transfer.sources import network_source as network_source
from bayesnn.transfer.study import LEVELS as LEVELS
from bayesnn.transfer.study import METHODS as METHODS
from bayesnn.transfer.study import Method as Method
from bayesnn.transfer.study import transfer_study as transfer_study
from bayesnn.transfer.summary import RECaSTSummary as RECaSTSummary
from bayesnn.transfer.summary import recast_summary as recast_summary
from bayesnn.transfer.table import Study as Study
from bayesnn.transfer.table import Table as Table
from bayesnn.transfer.without_source import without_source as without_source
