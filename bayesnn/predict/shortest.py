"""The shortest interval of a mixture that has a given probability."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesnn.predict.cdf import component_cdf, each_target, inside_support
from bayesnn.predict.quantile import centre, enclosed, quantile, solve

POINTS = 48
"""Where the cdf is looked at first, to find the region of the shortest interval."""
LEAST = 1e-6
"""The smallest tail that is looked at, of 1 - level; a bounded support's own end is tried too."""
PRECISION = 1e-9
"""Of the lower end, relative to its bracket; the upper one then gives the level
to the precision of the dtype.
"""

Cdf = Callable[[Tensor], Tensor]


def shortest(component: Distribution, level: float) -> tuple[Tensor, Tensor]:
    """[l, u] of the smallest length with F(u) - F(l) = level, F the mixture's cdf.

    A table of F finds the region; between the neighbours of its best point the length's slope
    p(l) / p(u) - 1 in l is solved for zero.

    Args:
        component: the mixture's components, [draw, ...], of continuous targets.
        level: in (0, 1).

    Raises:
        ValueError: a level outside (0, 1).
        NotImplementedError: labels and counts.
    """
    if not 0 < level < 1:
        raise ValueError(f"highest_density_interval: the level lies strictly between 0 and 1, not {level}")
    component = each_target(component)
    if component.support is not None and component.support.is_discrete:
        raise NotImplementedError(
            "highest_density_interval: labels and counts have no density; use probs, or interval(level) of counts"
        )
    axes = len(component.batch_shape) - 1

    def cdf(y: Tensor) -> Tensor:
        return component_cdf(component, y.unsqueeze(-1 - axes)).mean(-1 - axes)

    def log_density(y: Tensor) -> Tensor:
        y = y.unsqueeze(-1 - axes)
        each = inside_support(component.log_prob, component, y, below=-torch.inf, above=-torch.inf)
        return each.logsumexp(-1 - axes)

    y, f = _table(cdf, component, level)
    best = _best(y, f, level)
    low, high = (y.gather(0, (best + step).clamp(0, POINTS)).squeeze(0) for step in (-1, 1))
    brackets = _upper(y, f, cdf(low) + level, cdf(high) + level)

    def upper(lower: Tensor) -> Tensor:
        return solve(cdf, *brackets, cdf(lower) + level)

    def slope(place: Tensor) -> Tensor:
        lower = torch.lerp(low, high, place - 1)
        return (log_density(lower) - log_density(upper(lower))).nan_to_num(0.0)

    one = torch.ones_like(low)  # places from 1 to 2, so that precision is relative to the bracket
    lower = torch.lerp(low, high, solve(slope, one, 2 * one, 0 * one, precision=PRECISION) - 1)
    intervals = [(lower, upper(lower)), *_at_the_bounds(cdf, component, level)]
    lowers, uppers = (torch.stack(ends) for ends in zip(*intervals, strict=True))
    chosen = (uppers - lowers).argmin(0, keepdim=True)
    return lowers.gather(0, chosen).squeeze(0), uppers.gather(0, chosen).squeeze(0)


def _table(cdf: Cdf, component: Distribution, level: float) -> tuple[Tensor, Tensor]:
    """Increasing y and F(y), [point, *batch], dense where the ends of an interval can be."""
    middle, spread = centre(component)
    tail = torch.tensor(LEAST * (1 - level), dtype=torch.double).to(middle)
    low, high = enclosed(cdf, (middle - spread).amin(0), (middle + spread).amax(0), tail)
    low, high = enclosed(cdf, low, high, 1 - tail)
    y = torch.stack([low, high])
    f = torch.stack([cdf(low), cdf(high)])
    for _ in range(POINTS):
        # of lower ends, and of upper ones
        mass = (f.clamp(max=1 - level) + f.clamp(min=level)).diff(dim=0)
        cell = mass.argmax(0, keepdim=True)
        new = (y.gather(0, cell) + y.gather(0, cell + 1)) / 2
        y, order = torch.cat([y, new]).sort(0)
        f = torch.cat([f, cdf(new)]).gather(0, order)
    return y, f


def _best(y: Tensor, f: Tensor, level: float) -> Tensor:
    """Index [1, *batch] of the lower end of the shortest interval, upper ends interpolated."""
    right = torch.searchsorted(*_last(f, f + level)).movedim(-1, 0).clamp(1, len(f) - 1)
    f0, f1, y0, y1 = (table.gather(0, index) for table in (f, y) for index in (right - 1, right))
    share = ((f + level - f0) / (f1 - f0).clamp(min=torch.finfo(f.dtype).tiny)).clamp(0, 1)
    length = torch.where(f + level <= f[-1], torch.lerp(y0, y1, share) - y, torch.inf)
    return length.argmin(0, keepdim=True)


def _upper(y: Tensor, f: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Two points of the table that enclose all y with low <= F(y) <= high."""
    last = len(f) - 1
    first = (torch.searchsorted(*_last(f, low.unsqueeze(0)), right=True).movedim(-1, 0) - 1).clamp(0, last)
    second = torch.searchsorted(*_last(f, high.unsqueeze(0))).movedim(-1, 0).clamp(0, last)
    return y.gather(0, first).squeeze(0), y.gather(0, second).squeeze(0)


def _last(table: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Points as the last axis, where torch searches."""
    return table.movedim(0, -1).contiguous(), values.movedim(0, -1).contiguous()


def _at_the_bounds(cdf: Cdf, component: Distribution, level: float) -> list[tuple[Tensor, Tensor]]:
    """Intervals with one end where a bounded support of all components has its own."""
    intervals = []
    lower, upper = (getattr(component.support, name, None) for name in ("lower_bound", "upper_bound"))
    if lower is not None:
        end = quantile(cdf, component, level)
        intervals.append((_bound(lower, end, torch.amin), end))
    if upper is not None:
        end = quantile(cdf, component, 1 - level)
        intervals.append((end, _bound(upper, end, torch.amax)))
    return intervals


def _bound(bound: Tensor | float, like: Tensor, reduced: Callable[..., Tensor]) -> Tensor:
    """The bound of the mixture, of the shape of `like`; each component may have its own."""
    bound = torch.as_tensor(bound).to(like)
    return (reduced(bound, 0) if bound.dim() > like.dim() else bound).expand_as(like)
