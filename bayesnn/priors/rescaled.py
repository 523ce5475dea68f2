"""A normal prior with its scales multiplied: what the marginal likelihood fits."""

from collections.abc import Mapping

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.priors.protocol import Prior
from bayesnn.scales import check
from bayesnn.sites import base_of


class Rescaled(nn.Module):
    """w ~ N(m, (factor s)^2) where the prior was N(m, s^2)."""

    def __init__(self, prior: Prior, factor: float | Mapping[str, float | Tensor]) -> None:
        super().__init__()
        self.prior = prior
        if isinstance(factor, Mapping):
            for name, one in factor.items():
                check(f"priors.rescaled of {name!r}", factor=one)
            self.factor: float | dict[str, float | Tensor] = dict(factor)
        else:
            check("priors.rescaled", factor=factor)
            self.factor = float(factor)

    def of(self, name: str, value: Tensor) -> Tensor:
        """The factor of one block, on the device and in the precision of its value."""
        if isinstance(self.factor, dict) and name not in self.factor:
            raise ValueError(f"priors.rescaled: no factor for {name!r}; there are {', '.join(self.factor)}")
        factor = self.factor[name] if isinstance(self.factor, dict) else self.factor
        return torch.as_tensor(factor, dtype=value.dtype, device=value.device)

    def forward(self, name: str, value: Tensor) -> dist.TorchDistribution:
        """p(block)."""
        base = base_of(self.prior(name, value))
        if not isinstance(base, dist.Normal):
            raise TypeError(f"priors.rescaled: the prior of {name!r} is {type(base).__name__}, not normal")
        return dist.Normal(base.loc, base.scale * self.of(name, value), validate_args=False)

    def extra_repr(self) -> str:
        """The factor."""
        if isinstance(self.factor, dict):
            return f"factor={{{len(self.factor)} blocks}}"
        return f"factor={self.factor:.4g}"


def rescaled(prior: Prior, factor: float | Mapping[str, float | Tensor]) -> Rescaled:
    """A normal prior with its scales multiplied by `factor`; a prior that is rescaled already is
    not nested.

    Args:
        prior: normal.
        factor: one for all blocks, or {block: factor}, a number or one for every entry.

    Raises:
        ValueError: a factor that is not positive and finite, or no factor for a block.
        TypeError: a prior that is not normal.

    >>> import torch
    >>> from bayesnn.priors import normal
    >>> rescaled(normal(1.0), 0.5)("weight", torch.zeros(3)).scale
    tensor(0.5000)
    >>> rescaled(normal(1.0), {"weight": 2.0})("weight", torch.zeros(3)).scale
    tensor(2.)
    """
    if isinstance(prior, Rescaled):
        before = prior.factor
        if isinstance(factor, Mapping):
            held = before if isinstance(before, dict) else dict.fromkeys(factor, before)
            return Rescaled(prior.prior, {name: one * held[name] for name, one in factor.items()})
        if isinstance(before, dict):
            return Rescaled(prior.prior, {name: one * factor for name, one in before.items()})
        return Rescaled(prior.prior, before * factor)
    return Rescaled(prior, factor)
