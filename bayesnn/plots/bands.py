"""Predictive bands of a regression on one input: what is known of the mean, and where new
observations will fall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesnn.metrics import Array, central_interval
from bayesnn.plots import _style
from bayesnn.plots._arrays import Vector, check_lengths, matrix, vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def predictive_bands(
    x: Array,
    means: Array,
    *,
    outcomes: Array | None = None,
    data: tuple[Array, Array] | None = None,
    truth: Array | None = None,
    level: float = 0.95,
    xlabel: str = "x",
    ylabel: str = "y",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Central intervals over draws at every x: of E[y | x, w] (epistemic, dark) and of y itself
    (with noise, pale).

    The pale band is made of draws of the outcome, so it is right for any likelihood, skewed or
    heavy-tailed.

    Args:
        x: Inputs [batch], in any order, in the unit that `xlabel` names.
        means: Draws of E[y | x, w], [draw, batch], in target units.
        outcomes: Draws of y given x, [draw, batch], noise included; without them only the
            epistemic band is drawn.
        data: Observed `(x, y)`, each [points].
        truth: The true mean [batch], where it is known.
        level: Probability of both bands.
        xlabel: Name and unit of the input.
        ylabel: Name and unit of the target.
        title: What is seen; by default it names the level.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes, in the units of x and y.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nan, or shapes that do not fit.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed., 2013, section 14.3 (the two kinds of
    interval).

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> x = torch.linspace(-1, 1, 20)
        >>> ax = predictive_bands(x, torch.randn(50, 1) * x, data=([0.0], [0.1]), ax=Figure().subplots())
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['95% of means (epistemic)', 'median of means', 'data, n = 1']
    """
    where = "predictive_bands"
    places = vector(where, "x", x)
    order = places.argsort()
    places = places[order]

    def band(name: str, draws: Array) -> tuple[Vector, Vector, Vector]:
        """Lower end, median and upper end at the ordered places."""
        values = matrix(where, name, draws)
        check_lengths(where, x=places, **{name: values[0]})
        low, high = (end.numpy()[order] for end in central_interval(values, level=level))
        return low, np.median(values, axis=0)[order], high

    low, middle, high = band("means", means)
    pale = None if outcomes is None else band("outcomes", outcomes)
    if truth is not None:
        truth = vector(where, "truth", truth)
        check_lengths(where, x=places, truth=truth)
    if data is not None:
        data = vector(where, "data[0]", data[0]), vector(where, "data[1]", data[1])
        check_lengths(where, **{"data[0]": data[0], "data[1]": data[1]})

    ax = _style.axes(ax, (5.6, 4.2))
    if pale is not None:
        label = f"{level:.0%} of outcomes (with noise)"
        ax.fill_between(places, pale[0], pale[2], color=_style.BLUE, alpha=0.15, linewidth=0, label=label)
    label = f"{level:.0%} of means (epistemic)"
    ax.fill_between(places, low, high, color=_style.BLUE, alpha=0.35, linewidth=0, label=label)
    ax.plot(places, middle, color=_style.BLUE, linewidth=1.8, label="median of means")
    if truth is not None:
        ax.plot(places, truth[order], color=_style.VERMILION, linewidth=1.3, linestyle=(0, (4, 2)), label="truth")
    if data is not None:
        label = f"data, n = {len(data[0])}"
        ax.scatter(*data, s=16, color=_style.INK, edgecolor="white", linewidth=0.5, zorder=3, label=label)
    ax.set_xlim(places[0], places[-1])
    rows = _style.legend_above(ax, columns=2)
    _style.name(
        ax, x=xlabel, y=ylabel, title=f"Prediction with {level:.0%} bands" if title is None else title, above=rows
    )
    return ax
