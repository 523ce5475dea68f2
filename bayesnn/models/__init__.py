"""Pyro models, one a file, and the one place where outputs meet targets."""

from bayesnn.models.bnn import BNN as BNN
from bayesnn.models.features import cache_features as cache_features
from bayesnn.models.generative_classifier import GenerativeClassifier as GenerativeClassifier
from bayesnn.models.latent_head import LatentHead as LatentHead
from bayesnn.models.neural_linear import NeuralLinear as NeuralLinear
from bayesnn.models.observe import likelihood_given as likelihood_given
from bayesnn.models.observe import observe as observe
from bayesnn.models.protocol import Draws as Draws
from bayesnn.models.protocol import Model as Model
from bayesnn.models.truncation import TruncatedNetwork as TruncatedNetwork
from bayesnn.models.truncation import truncate as truncate
