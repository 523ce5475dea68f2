"""Draws times inputs to outputs, and the predictive distribution of y."""

from bayesnn.predict.distribution import PredictiveDistribution as PredictiveDistribution
from bayesnn.predict.draw import Posterior as Posterior
from bayesnn.predict.draw import draw as draw
from bayesnn.predict.draw import draw_each as draw_each
from bayesnn.predict.ensembles import ensemble_outputs as ensemble_outputs
from bayesnn.predict.ensembles import noisy_outputs as noisy_outputs
from bayesnn.predict.linearised import linearised as linearised
from bayesnn.predict.links import bridge as bridge
from bayesnn.predict.links import gaussian as gaussian
from bayesnn.predict.links import probit as probit
from bayesnn.predict.outputs import predict as predict
from bayesnn.predict.predictive import predictive as predictive
from bayesnn.predict.stochastic_depth import SkippedBlock as SkippedBlock
from bayesnn.predict.stochastic_depth import stochastic_depth as stochastic_depth
