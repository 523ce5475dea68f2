"""Which scalars of which parameters are random, and the ways to choose them."""

from bayesnn.subset.core import Subset as Subset
from bayesnn.subset.named import everything as everything
from bayesnn.subset.named import last_layer as last_layer
from bayesnn.subset.named import named as named
from bayesnn.subset.named import of_type as of_type
from bayesnn.subset.ranked import largest_magnitude as largest_magnitude
from bayesnn.subset.ranked import largest_variance as largest_variance
from bayesnn.subset.ranked import random as random
