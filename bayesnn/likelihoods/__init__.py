"""Likelihoods: outputs [*draw, batch, ...] -> the distribution of y, of batch
shape [*draw, batch].
"""

from bayesnn.likelihoods.classes import bernoulli as bernoulli
from bayesnn.likelihoods.classes import categorical as categorical
from bayesnn.likelihoods.classes import pixelwise_categorical as pixelwise_categorical
from bayesnn.likelihoods.counts import negative_binomial as negative_binomial
from bayesnn.likelihoods.counts import poisson as poisson
from bayesnn.likelihoods.protocol import HasBridgePredictive as HasBridgePredictive
from bayesnn.likelihoods.protocol import HasExpectation as HasExpectation
from bayesnn.likelihoods.protocol import HasFisher as HasFisher
from bayesnn.likelihoods.protocol import HasFisherRoot as HasFisherRoot
from bayesnn.likelihoods.protocol import HasLabelExpectation as HasLabelExpectation
from bayesnn.likelihoods.protocol import HasNormalNoise as HasNormalNoise
from bayesnn.likelihoods.protocol import HasNormalPredictive as HasNormalPredictive
from bayesnn.likelihoods.protocol import HasProbitPredictive as HasProbitPredictive
from bayesnn.likelihoods.protocol import Likelihood as Likelihood
from bayesnn.likelihoods.real import heteroscedastic as heteroscedastic
from bayesnn.likelihoods.real import normal as normal
from bayesnn.likelihoods.real import student_t as student_t
from bayesnn.scales import learned as learned
