"""Means and variances through an unchanged network: a tensor type, and an open table of rules."""

# The rules enter the table as their files are imported.
from bayesnn.functional.moments import clipping as clipping
from bayesnn.functional.moments import joint_arithmetic as joint_arithmetic
from bayesnn.functional.moments import joint_shapes as joint_shapes
from bayesnn.functional.moments import normalisation as normalisation
from bayesnn.functional.moments import products as products
from bayesnn.functional.moments import shapes as shapes
from bayesnn.functional.moments.joint import COVARIANCE_RULES as COVARIANCE_RULES
from bayesnn.functional.moments.joint import JointMoments as JointMoments
from bayesnn.functional.moments.joint import covariance_rule as covariance_rule
from bayesnn.functional.moments.joint_elementwise import first_order as first_order
from bayesnn.functional.moments.pairwise import pairwise_max_pool as pairwise_max_pool
from bayesnn.functional.moments.propagate import propagate_moments as propagate_moments
from bayesnn.functional.moments.quadrature import elementwise_moments as elementwise_moments
from bayesnn.functional.moments.shapes import both_moments as both_moments
from bayesnn.functional.moments.table import MOMENT_RULES as MOMENT_RULES
from bayesnn.functional.moments.table import moment_rule as moment_rule
from bayesnn.functional.moments.table import using_moment_rules as using_moment_rules
from bayesnn.functional.moments.value import Moments as Moments
from bayesnn.functional.moments.value import Multiplicative as Multiplicative
