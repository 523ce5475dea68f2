"""Normal posteriors whose predictions are propagated moments, without draws."""

from bayesnn.guides.multiplicative_noise.elbo import MomentPropagationELBO as MomentPropagationELBO
from bayesnn.guides.multiplicative_noise.families import PerInput as PerInput
from bayesnn.guides.multiplicative_noise.families import PerInputVariance as PerInputVariance
from bayesnn.guides.multiplicative_noise.families import PerWeight as PerWeight
from bayesnn.guides.multiplicative_noise.guide import MultiplicativeNoise as MultiplicativeNoise
