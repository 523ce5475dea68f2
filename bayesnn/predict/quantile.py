"""Quantiles of a mixture, by bracketing its cdf."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

STEPS = 200
"""At most so many evaluations; ten or so are needed."""


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
    middle, spread = centre(component)
    wanted = wanted.to(middle)
    low, high = enclosed(cdf, (middle - spread).amin(0), (middle + spread).amax(0), wanted)
    if component.support is not None and component.support.is_discrete:
        return _smallest(cdf, torch.full_like(low, -1.0), high.ceil(), wanted)
    return solve(cdf, low, high, wanted)


def enclosed(cdf: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Widen until the level lies inside: cdf(low) <= level <= cdf(high)."""
    for _ in range(200):
        outside_low, outside_high = cdf(low) > level, cdf(high) < level
        if not bool((outside_low | outside_high).any()):
            return low, high
        width = high - low
        low, high = torch.where(outside_low, low - width, low), torch.where(outside_high, high + width, high)
    raise RuntimeError("icdf: no bracket of the quantile was found; is the cdf finite?")


def solve(
    function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, level: Tensor, *, precision: float = 0.0
) -> Tensor:
    """The x in [low, high] at which an increasing function is `level`; the nearer end where it is
    on neither side.

    `precision` is relative to x, that of the dtype at best.

    Inverse quadratic interpolation where three points allow it, else bisection.

    Reference: Chandrupatla (1997), A new hybrid quadratic/bisection algorithm for finding the zero
    of a nonlinear function without using derivatives.
    """
    x1, x2, f1, f2 = torch.broadcast_tensors(low, high, function(low) - level, function(high) - level)
    outside = (f1 < 0) == (f2 < 0)  # by rounding, where the end itself is the solution
    precision = max(precision, 2 * torch.finfo(x1.dtype).eps)
    t: Tensor = torch.full_like(x1, 0.5)
    for _ in range(STEPS):
        nearest = torch.where(f1.abs() < f2.abs(), x1, x2)
        least = precision * nearest.abs() / (x2 - x1).abs()
        done = outside | (f1 == 0) | (f2 == 0) | ~(least < 0.5)
        if bool(done.all()):
            break
        x = torch.where(done, nearest, x1 + torch.clamp(t, least.clamp(max=0.5), 1 - least.clamp(max=0.5)) * (x2 - x1))
        f = function(x) - level
        same = (f < 0) == (f1 < 0)
        x3, f3 = torch.where(same, x1, x2), torch.where(same, f1, f2)
        x2, f2 = torch.where(done | same, x2, x1), torch.where(done | same, f2, f1)
        x1, f1 = torch.where(done, x1, x), torch.where(done, f1, f)
        t = _interpolated(x1, x2, x3, f1, f2, f3)
    return torch.where(f1.abs() < f2.abs(), x1, x2)


def _interpolated(x1: Tensor, x2: Tensor, x3: Tensor, f1: Tensor, f2: Tensor, f3: Tensor) -> Tensor:
    """Where between x1 (0) and x2 (1) the next point is: the zero of the inverse parabola, if that
    is safe, or 1/2.
    """
    xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
    t = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
    return torch.where((phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi) & t.isfinite(), t, 0.5)


def _smallest(cdf: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, level: Tensor) -> Tensor:
    """The smallest integer in (low, high] with cdf >= level, where
    cdf(low) < level <= cdf(high).
    """
    for _ in range(200):
        if bool((high - low <= 1).all()):
            break
        middle = ((low + high) / 2).floor()
        below = cdf(middle) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def centre(component: Distribution) -> tuple[Tensor, Tensor]:
    """A location and a positive width from which a bracket of the quantiles
    grows; no moment needs to exist.
    """
    loc, scale = getattr(component, "loc", None), getattr(component, "scale", None)
    if loc is not None and scale is not None:
        return loc, 4 * scale.expand_as(loc)
    mean, deviation = component.mean, component.stddev
    return mean.nan_to_num(0.0, 0.0, 0.0), 4 * deviation.nan_to_num(1.0, 1.0) + 1
