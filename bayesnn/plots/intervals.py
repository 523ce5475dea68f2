"""Predictions for single examples: median, a likely and a wide interval, and what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from bayesnn.metrics import Array
from bayesnn.metrics._checks import check_level
from bayesnn.plots import _style
from bayesnn.plots._arrays import Vector, check_lengths, vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class HasQuantiles(Protocol):
    """A distribution of one number for each example: `PredictiveDistribution`,
    or one of torch's or Pyro's.
    """

    def icdf(self, value: Tensor, /) -> Tensor:
        """The quantile at a level, [batch]."""
        ...


def prediction_intervals(
    predictive: HasQuantiles,
    y: Array | None = None,
    *,
    levels: Sequence[float] = (0.5, 0.9),
    ylabel: str = "y",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Median and equal-tailed intervals of every example, in the order of the medians; no moment
    has to exist.

    Observed targets are dots inside the widest interval and diamonds outside; their share is in
    the key.

    Args:
        predictive: has `icdf`; one target an example.
        y: Observed targets [batch], in target units.
        levels: Probabilities of one or two intervals.
        ylabel: Name and unit of the target.
        title: What is seen; by default the number of examples.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes; y in target units.

    Raises:
        ImportError: matplotlib is not installed.
        NotImplementedError: labels, or a family without quantiles.
        ValueError: more than two levels or one outside (0, 1); several targets an example; nan, or
            shapes that do not fit.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed., 2013, section 6.3 (the picture).

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> normal = torch.distributions.Normal(torch.zeros(9), 1.0)
        >>> ax = prediction_intervals(normal, [5.0] + 8 * [0.0], ax=Figure().subplots())
        >>> ax.texts[1].get_text()
        'observed: 8 of 9 inside 90%'
    """
    where = "prediction_intervals"
    if not 1 <= len(levels) <= 2:
        raise ValueError(f"{where}: one or two levels can be told apart, not {len(levels)}.")
    for level in levels:
        check_level(where, level)
    nested = sorted(levels, reverse=True)
    median = _quantile(where, predictive, 0.5)
    ends = [tuple(_quantile(where, predictive, (1 + sign * level) / 2) for sign in (-1, 1)) for level in nested]
    order = median.argsort(kind="stable")
    places = np.arange(1, len(median) + 1)
    ax = _style.axes(ax, (6.4, 3.8))
    width = float(np.clip(220 / len(median), 0.8, 6))
    styles = [(0.35 * width, 0.45), (width, 0.45)][-len(nested) :]
    for (low, high), (line, alpha) in zip(ends, styles, strict=True):
        ax.vlines(places, low[order], high[order], color=_style.BLUE, linewidth=line, alpha=alpha)
    size = float(np.clip(900 / len(median), 4, 26))
    ax.scatter(places, median[order], s=size, color="white", edgecolor=_style.BLUE, linewidth=0.9, zorder=3)
    words = " and ".join(f"{level:.0%}" for level in reversed(nested))
    entries = [(f"median, {words} interval{'s' * (len(nested) > 1)}", _style.BLUE)]
    if y is not None:
        seen = vector(where, "y", y)
        check_lengths(where, predictive=median, y=seen)
        inside = (ends[0][0] <= seen) & (seen <= ends[0][1])
        for marked, marker, colour in ((inside, "o", _style.INK), (~inside, "D", _style.VERMILION)):
            chosen = marked[order]
            ax.scatter(places[chosen], seen[order][chosen], s=size, marker=marker, color=colour, linewidth=0, zorder=4)
        entries.append((f"observed: {inside.sum()} of {len(seen)} inside {nested[0]:.0%}", _style.INK))
        if not inside.all():
            entries.append(("outside", _style.VERMILION))
    ax.set_xlim(0, len(median) + 1)
    ax.locator_params(axis="x", integer=True)
    _style.headroom(ax, len(entries))
    _style.key(ax, entries, "upper left")
    default = f"Predictions for {len(median):,} examples"
    _style.name(ax, x="example, in the order of the medians", y=ylabel, title=default if title is None else title)
    return ax


def _quantile(where: str, predictive: HasQuantiles, level: float) -> Vector:
    quantiles = predictive.icdf(torch.tensor(level, dtype=torch.double)).detach()
    quantiles = quantiles.squeeze(-1) if quantiles.dim() == 2 and quantiles.shape[1] == 1 else quantiles
    if quantiles.dim() != 1:
        raise ValueError(
            f"{where}: one target for each example can be drawn, the quantiles have shape {tuple(quantiles.shape)}."
        )
    return vector(where, "predictive.icdf", quantiles)
