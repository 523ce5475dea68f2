"""Models of a random last layer on a learned body: the neural linear model and
the generative classifier.
"""

from bayesnn.models.last_layer.generative_classifier import GenerativeClassifier as GenerativeClassifier
from bayesnn.models.last_layer.model import LastLayerModel as LastLayerModel
from bayesnn.models.last_layer.neural_linear import NeuralLinear as NeuralLinear
