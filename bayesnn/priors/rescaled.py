"""A normal prior with all its scales multiplied by one number: what the marginal likelihood fits."""

from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.priors.protocol import Prior
from bayesnn.scales import check


class Rescaled(nn.Module):
    """w ~ N(m, (factor s)^2) where the prior was N(m, s^2)."""

    def __init__(self, prior: Prior, factor: float) -> None:
        super().__init__()
        check("priors.rescaled", factor=factor)
        self.prior, self.factor = prior, float(factor)

    def forward(self, name: str, value: Tensor) -> dist.TorchDistribution:
        """p(block)."""
        prior = self.prior(name, value)
        base = prior.base_dist if isinstance(prior, dist.Independent) else prior
        if not isinstance(base, dist.Normal):
            raise TypeError(f"priors.rescaled: the prior of {name!r} is {type(base).__name__}, not normal")
        return dist.Normal(base.loc, base.scale * self.factor, validate_args=False)

    def extra_repr(self) -> str:
        """The factor."""
        return f"factor={self.factor:.4g}"


def rescaled(prior: Prior, factor: float) -> Rescaled:
    """A normal prior with every scale multiplied by `factor`; a prior that is rescaled already is not nested.

    >>> import torch
    >>> from bayesnn.priors import normal
    >>> rescaled(normal(1.0), 0.5)("weight", torch.zeros(3)).scale
    tensor(0.5000)
    """
    if isinstance(prior, Rescaled):
        return Rescaled(prior.prior, prior.factor * factor)
    return Rescaled(prior, factor)
