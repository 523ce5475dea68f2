"""Derivatives of networks in their random weights: Jacobians, Gauss-Newton
products and diagonals, layer by layer.
"""

from bayesnn.curvature.diagonal import ggn_diagonal as ggn_diagonal
from bayesnn.curvature.fallback import SlowFallback as SlowFallback
from bayesnn.curvature.ggn_products import GGNProducts as GGNProducts
from bayesnn.curvature.jacobian import jacobian as jacobian
from bayesnn.curvature.jacobian_rows import JacobianRows as JacobianRows
from bayesnn.curvature.layers import Pass as Pass
from bayesnn.curvature.layers import forward_pass as forward_pass
from bayesnn.curvature.variances import linearised_variance as linearised_variance
