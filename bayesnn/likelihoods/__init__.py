"""Likelihoods: outputs [*draw, batch, ...] -> the distribution of y, of batch shape [*draw, batch]."""

from bayesnn.likelihoods.classes import bernoulli as bernoulli
from bayesnn.likelihoods.classes import categorical as categorical
from bayesnn.likelihoods.classes import pixelwise_categorical as pixelwise_categorical
from bayesnn.likelihoods.counts import negative_binomial as negative_binomial
from bayesnn.likelihoods.counts import poisson as poisson
from bayesnn.likelihoods.protocol import Likelihood as Likelihood
from bayesnn.likelihoods.real import heteroscedastic as heteroscedastic
from bayesnn.likelihoods.real import normal as normal
from bayesnn.likelihoods.real import student_t as student_t
from bayesnn.scales import learned as learned
