"""Likelihoods of counts, y [batch, out], with a log link."""

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.scales import Scale, check, describe, resolve


class Poisson(nn.Module):
    """y ~ Poisson(exp(f))."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """p(y | outputs)."""
        return dist.Poisson(outputs.exp()).to_event(1)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(exp(f))."""
        return torch.diag_embed(outputs.exp())


class NegativeBinomial(nn.Module):
    """y ~ NegativeBinomial with mean m = exp(f) and variance m + m^2 / concentration."""

    def __init__(self, concentration: Scale) -> None:
        super().__init__()
        check("likelihoods.negative_binomial", concentration=concentration)
        self.concentration = concentration

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """p(y | outputs)."""
        concentration = resolve("y_concentration", self.concentration, outputs, 1).expand_as(outputs)
        return dist.GammaPoisson(concentration, concentration / outputs.exp()).to_event(1)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(m r / (m + r)) with r the concentration."""
        mean, r = outputs.exp(), resolve("y_concentration", self.concentration, outputs, 1)
        return torch.diag_embed(mean * r / (mean + r))

    def extra_repr(self) -> str:
        """The concentration."""
        return f"concentration={describe(self.concentration)}"


poisson = Poisson()


def negative_binomial(concentration: Scale = 1.0) -> NegativeBinomial:
    """Counts with mean m = exp(f) and variance m + m^2 / concentration: a Poisson whose rate is Gamma distributed.

    Args:
        concentration: fixed, learned or latent (site "y_concentration"), as the scale of `normal`. Large: Poisson.

    >>> negative_binomial(2.0)(torch.zeros(1, 1)).variance
    tensor([[1.5000]])
    """
    return NegativeBinomial(concentration)
