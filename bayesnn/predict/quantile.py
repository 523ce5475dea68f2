"""Quantiles of a mixture by bisection of its cdf."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution


def quantile(cdf: Callable[[Tensor], Tensor], component: Distribution, level: Tensor | float) -> Tensor:
    """The y at which the mixture's cdf is `level`; for counts the smallest y with cdf(y) >= level.

    Args:
        cdf: of the mixture over the first axis of `component`.
        component: its components, [draw, ...]; where the search starts.
        level: in (0, 1), one or a tensor that broadcasts against y.
    """
    wanted = torch.as_tensor(level, dtype=torch.double)
    if not bool(((wanted > 0) & (wanted < 1)).all()):
        raise ValueError(f"icdf: levels lie strictly between 0 and 1, not {wanted.tolist()}")
    centre, spread = _centre(component)
    wanted = wanted.to(centre)
    low, high = _bracket(cdf, (centre - spread).amin(0), (centre + spread).amax(0), wanted)
    if component.support is not None and component.support.is_discrete:
        return _smallest(cdf, torch.full_like(low, -1.0), high.ceil(), wanted)
    return _bisect(cdf, low, high, wanted)


def _bracket(cdf: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Widen until the level lies inside: cdf(low) <= level <= cdf(high)."""
    for _ in range(200):
        outside_low, outside_high = cdf(low) > level, cdf(high) < level
        if not bool((outside_low | outside_high).any()):
            return low, high
        width = high - low
        low, high = torch.where(outside_low, low - width, low), torch.where(outside_high, high + width, high)
    raise RuntimeError("icdf: no bracket of the quantile was found; is the cdf finite?")


def _bisect(cdf: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, level: Tensor) -> Tensor:
    precision = 2 * torch.finfo(low.dtype).eps
    for _ in range(100):
        middle = (low + high) / 2
        below = cdf(middle) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        if bool((high - low <= precision * torch.maximum(low.abs(), high.abs())).all()):
            break
    return (low + high) / 2


def _smallest(cdf: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, level: Tensor) -> Tensor:
    """The smallest integer in (low, high] with cdf >= level, where cdf(low) < level <= cdf(high)."""
    for _ in range(200):
        if bool((high - low <= 1).all()):
            break
        middle = ((low + high) / 2).floor()
        below = cdf(middle) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def _centre(component: Distribution) -> tuple[Tensor, Tensor]:
    """A location and a positive width from which a bracket of the quantiles grows; no moment needs to exist."""
    loc, scale = getattr(component, "loc", None), getattr(component, "scale", None)
    if loc is not None and scale is not None:
        return loc, 4 * scale.expand_as(loc)
    mean, deviation = component.mean, component.stddev
    return mean.nan_to_num(0.0, 0.0, 0.0), 4 * deviation.nan_to_num(1.0, 1.0) + 1
