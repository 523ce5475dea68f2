"""Likelihoods of counts, y [batch, out], with a log link."""

from pyro import distributions as dist
from torch import Tensor
from typing_extensions import override

from bayesnn.likelihoods.expectations import variances
from bayesnn.likelihoods.scores import IndependentOutputs, negative_binomial_log_mean
from bayesnn.scales import Scale, check, describe, resolve


class Poisson(IndependentOutputs):
    """y ~ Poisson(exp(f))."""

    @override
    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Poisson(outputs.exp()).to_event(1)

    def score_deviation(self, outputs: Tensor) -> Tensor:
        """exp(f / 2)."""
        return (0.5 * outputs).exp()

    def expected_log_prob(self, mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
        """sum_k y_k mean_k - exp(mean_k + V_kk / 2) - log y_k!: exact."""
        return (y * mean - (mean + variances(mean, variance) / 2).exp() - (y + 1).lgamma()).sum(-1)


class NegativeBinomial(IndependentOutputs):
    """y ~ NegativeBinomial with mean m = exp(f) and variance m + m^2 / concentration."""

    def __init__(self, concentration: Scale) -> None:
        super().__init__()
        check("likelihoods.negative_binomial", concentration=concentration)
        self.concentration = concentration

    @override
    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        concentration = resolve("y_concentration", self.concentration, outputs, 1).expand_as(outputs)
        return dist.GammaPoisson(concentration, concentration / outputs.exp()).to_event(1)

    def score_deviation(self, outputs: Tensor) -> Tensor:
        """sqrt(m r / (m + r)) with r the concentration."""
        r = resolve("y_concentration", self.concentration, outputs, 1)
        return negative_binomial_log_mean(outputs.exp(), r)

    @override
    def extra_repr(self) -> str:
        return f"concentration={describe(self.concentration)}"


poisson = Poisson()


def negative_binomial(concentration: Scale = 1.0) -> NegativeBinomial:
    """Counts with mean m = exp(f) and variance m + m^2 / concentration: a Poisson whose rate is
    Gamma distributed.

    Args:
        concentration: fixed, learned or latent (site "y_concentration"), as the scale of `normal`.
            Large: Poisson.

    >>> import torch
    >>> negative_binomial(2.0)(torch.zeros(1, 1)).variance
    tensor([[1.5000]])
    """
    return NegativeBinomial(concentration)
