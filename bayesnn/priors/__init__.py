"""Priors: (parameter name, its present value) -> a Pyro distribution over that block."""

from bayesnn.priors.families import laplace as laplace
from bayesnn.priors.families import normal as normal
from bayesnn.priors.families import student_t as student_t
from bayesnn.priors.hierarchical import hierarchical as hierarchical
from bayesnn.priors.pretrained import around as around
from bayesnn.priors.protocol import Prior as Prior
from bayesnn.priors.rescaled import rescaled as rescaled
from bayesnn.priors.width import fan_in as fan_in
from bayesnn.scales import learned as learned
