"""Positive quantities of a prior or likelihood that are fixed (a number), learned (a parameter) or
latent (a site).
"""

import copy
import math
from numbers import Real
from typing import Any, TypeAlias

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.functional import alone
from bayesnn.handlers import SurroundingPlates, param_site

ALIGNED = "_aligned"
"""Marks a site whose value keeps the axes of draws in their place; those of a
user's own function may not.
"""


class Learned(nn.Module):
    """exp(log_value): a positive quantity that is a generative parameter of the
    model, trained with the guide.
    """

    def __init__(self, initial: float | Tensor) -> None:
        super().__init__()
        initial = torch.as_tensor(initial, dtype=torch.get_default_dtype())
        if not bool((initial > 0).all() and initial.isfinite().all()):
            raise ValueError(f"learned: the initial value must be positive and finite, not {initial.tolist()}")
        self.log_value = nn.Parameter(initial.log().clone())

    def forward(self) -> Tensor:
        """The present value."""
        return self.log_value.exp()

    def extra_repr(self) -> str:
        """The present value."""
        return f"{self.log_value.detach().exp().tolist()}"


Scale: TypeAlias = "float | Tensor | Learned | dist.TorchDistribution"


def learned(initial: float | Tensor) -> Learned:
    """A positive quantity to be learned, starting from `initial`.

    >>> learned(0.5)().item()
    0.5
    """
    return Learned(initial)


def check(owner: str, **scales: Scale) -> None:
    """Refuse a fixed quantity that is not positive, by its name."""
    for name, scale in scales.items():
        if isinstance(scale, (Learned, dist.Distribution)):
            continue
        if not isinstance(scale, (Real, Tensor)):
            raise TypeError(
                f"{owner}: {name} must be a positive number or tensor, learned(...), or a distribution of "
                f"pyro.distributions, not {type(scale).__module__}.{type(scale).__name__}"
            )
        value = torch.as_tensor(scale)
        if not bool((value > 0).all() and value.isfinite().all()):
            raise ValueError(f"{owner}: {name} must be positive and finite, not {value.tolist()}")


def resolve(site: str, scale: Scale, like: Tensor, event_dim: int) -> Tensor:
    """The present value of a quantity, on the device and in the precision of `like`.

    A latent quantity is sampled at `site`. The axes that plates and draws make on its left stay
    there, and `event_dim` axes follow them, so that it broadcasts against values with an event of
    so many axes; a quantity that has axes of its own takes the place of the last of those.
    """
    if isinstance(scale, dist.Distribution):
        own = len(scale.event_shape) + len(scale.batch_shape)
        with alone(), SurroundingPlates() as plates:
            marked: Any = {ALIGNED: True}
            value = pyro.sample(site, moved(scale, like).to_event(len(scale.batch_shape)), infer=marked)
        lead = value.shape[: value.dim() - own]
        # Predictive(parallel=True) leaves some of these out
        lead = lead + (1,) * (plates.depth - len(lead))
    else:
        held = param_site(site, scale.log_value).exp() if isinstance(scale, Learned) else scale
        value = torch.as_tensor(held, device=like.device, dtype=like.dtype)
        own, lead = value.dim(), torch.Size()
    if not value.dim():
        return value  # a single number broadcasts as it is
    return value.reshape(lead + (1,) * (event_dim - own) + value.shape[value.dim() - own :])


def describe(scale: Scale) -> str:
    """How a printed table names the quantity."""
    if isinstance(scale, Learned):
        return f"learned, now {_numbers(scale())}"
    if isinstance(scale, dist.Distribution):
        return f"latent {type(scale).__name__}"
    return _numbers(torch.as_tensor(scale))


def _numbers(value: Tensor) -> str:
    return f"{value.item():.4g}" if value.numel() == 1 else f"[{math.prod(value.shape)} values]"


def moved(distribution: Any, like: Tensor) -> Any:
    """The distribution with its parameters on the device and in the precision of `like`: users
    write HalfCauchy(1).
    """
    changed: dict[str, Any] = {}
    for name, value in vars(distribution).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            there: Any = value.to(device=like.device, dtype=like.dtype)
        elif isinstance(value, torch.distributions.Distribution):
            there = moved(value, like)
        else:
            continue
        if there is not value:
            changed[name] = there
    if not changed:
        return distribution
    result = copy.copy(distribution)
    vars(result).update(changed)
    return result
