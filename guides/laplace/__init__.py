"""Laplace approximations: one guide, and the structures that its curvature may have."""

from bayesnn.guides.laplace.conditional import BlockConditional as BlockConditional
from bayesnn.guides.laplace.diagonal import Diagonal as Diagonal
from bayesnn.guides.laplace.full import Full as Full
from bayesnn.guides.laplace.guide import Laplace as Laplace
from bayesnn.guides.laplace.hessian import Hessian as Hessian
from bayesnn.guides.laplace.kronecker import Kronecker as Kronecker
from bayesnn.guides.laplace.low_rank import LowRank as LowRank
from bayesnn.guides.laplace.mode import ModeDistance as ModeDistance
from bayesnn.guides.laplace.mode import distance_to_mode as distance_to_mode
from bayesnn.guides.laplace.online import train_online as train_online
