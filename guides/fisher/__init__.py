"""Ways to the Fisher information, exact or estimated: for Laplace approximations and for
variational Laplace alike.
"""

from bayesnn.guides.fisher.empirical import EmpiricalFisher as EmpiricalFisher
from bayesnn.guides.fisher.exact import ExactFisher as ExactFisher
from bayesnn.guides.fisher.monte_carlo import MonteCarloFisher as MonteCarloFisher
from bayesnn.guides.fisher.probes import FisherProbes as FisherProbes
from bayesnn.guides.fisher.protocol import BackwardPass as BackwardPass
from bayesnn.guides.fisher.protocol import Curvature as Curvature
from bayesnn.guides.fisher.protocol import OutputFisher as OutputFisher
