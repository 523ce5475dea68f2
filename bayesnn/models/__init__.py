"""Pyro models, one a file or folder, and the one place where outputs meet targets."""

from bayesnn.models import last_layer as last_layer
from bayesnn.models import rank_one as rank_one
from bayesnn.models import recast as recast
from bayesnn.models.bnn import BNN as BNN
from bayesnn.models.features import cache_features as cache_features
from bayesnn.models.last_layer import GenerativeClassifier as GenerativeClassifier
from bayesnn.models.last_layer import NeuralLinear as NeuralLinear
from bayesnn.models.latent_head import LatentHead as LatentHead
from bayesnn.models.observe import likelihood_given as likelihood_given
from bayesnn.models.observe import observe as observe
from bayesnn.models.protocol import Draws as Draws
from bayesnn.models.protocol import FlatGuide as FlatGuide
from bayesnn.models.protocol import Guide as Guide
from bayesnn.models.protocol import LinearisedGuide as LinearisedGuide
from bayesnn.models.protocol import Model as Model
from bayesnn.models.protocol import OfModel as OfModel
from bayesnn.models.protocol import is_flat_guide as is_flat_guide
from bayesnn.models.protocol import is_model as is_model
from bayesnn.models.rank_one import RankOneEnsemble as RankOneEnsemble
from bayesnn.models.rank_one import batch_ensemble as batch_ensemble
from bayesnn.models.rank_one import latent_rank_one as latent_rank_one
from bayesnn.models.recast import RECaST as RECaST
from bayesnn.models.truncation import TruncatedNetwork as TruncatedNetwork
from bayesnn.models.truncation import truncate as truncate
