"""Means and variances through an unchanged network: a tensor type, and an open table of rules."""

# The rules enter the table as their files are imported.
from bayesnn.moments import choices as choices
from bayesnn.moments import clipping as clipping
from bayesnn.moments import contractions as contractions
from bayesnn.moments import joint_arithmetic as joint_arithmetic
from bayesnn.moments import joint_shapes as joint_shapes
from bayesnn.moments import lookups as lookups
from bayesnn.moments import normalisation as normalisation
from bayesnn.moments import products as products
from bayesnn.moments import resampling as resampling
from bayesnn.moments import shapes as shapes
from bayesnn.moments.joint import COVARIANCE_RULES as COVARIANCE_RULES
from bayesnn.moments.joint import JointMoments as JointMoments
from bayesnn.moments.joint import covariance_rule as covariance_rule
from bayesnn.moments.joint_elementwise import first_order as first_order
from bayesnn.moments.pairwise import pairwise_max_pool as pairwise_max_pool
from bayesnn.moments.propagate import propagate_moments as propagate_moments
from bayesnn.moments.quadrature import elementwise_moments as elementwise_moments
from bayesnn.moments.shapes import both_moments as both_moments
from bayesnn.moments.table import MOMENT_RULES as MOMENT_RULES
from bayesnn.moments.table import moment_rule as moment_rule
from bayesnn.moments.table import using_moment_rules as using_moment_rules
from bayesnn.moments.uses import RepeatedUse as RepeatedUse
from bayesnn.moments.value import Moments as Moments
from bayesnn.moments.value import Multiplicative as Multiplicative
