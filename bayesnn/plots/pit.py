"""PIT histograms: are predictions calibrated, and if not, are they too wide,
too narrow or shifted?
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from bayesnn.metrics import Array
from bayesnn.plots import _style
from bayesnn.plots._pits import binomial_band, checked_pits

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pit_histogram(pits: Mapping[str, Array], *, bins: int = 10, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Histogram of u_i = F_i(y_i) in equal bins as a density, which is 1 if predictions are
    calibrated.

    A hump in the middle: predictions are too wide; high ends: too narrow; a slope: they are
    shifted. The band is simultaneous: all bins of as many independent uniform values lie in it
    with probability `level` or more, by binomial quantiles at 1 - (1 - level) / bins for each bin
    (Bonferroni). It is that of the smallest set.

    Args:
        pits: {name: u [batch]}, between 0 and 1: `predictive(...).cdf(y)` of new data,
            `arviz.loo_pit` of the data that was fitted to.
        bins: how many; about n / 10 or fewer leave the band narrow enough to see something.
        level: Probability of the band.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes; x is a probability, y a density.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing to draw, or more sets than colours; fewer than two bins; nan, or values
            outside [0, 1].

    Source: Dawid, J. R. Stat. Soc. A 147, 1984; Gneiting, Balabdaoui and Raftery, J. R. Stat. Soc.
    B 69, 2007.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> pit_histogram({"mine": torch.linspace(0, 1, 50)}, ax=Figure().subplots()).get_title("left")
        'PIT histogram, n = 50'
    """
    where = "pit_histogram"
    checked = checked_pits(where, pits, level)
    _style.check_colours(where, checked)
    if bins < 2:
        raise ValueError(f"{where}: at least two bins are needed, not {bins}.")
    ax = _style.axes(ax, (4.8, 3.6))
    smallest = min(len(u) for u in checked.values())
    each = 1 - (1 - level) / bins
    low, high = (bins * float(end) for end in binomial_band(smallest, torch.tensor([1 / bins]), each))
    ax.axhspan(low, high, color=_style.FAINT, alpha=0.18, linewidth=0)
    ax.axhline(1, color=_style.FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    edges, highest = np.linspace(0, 1, bins + 1), high
    for u, colour in zip(checked.values(), _style.COLOURS, strict=False):
        density = np.histogram(u.numpy(), edges)[0] * bins / len(u)
        if len(checked) == 1:
            ax.stairs(density, edges, color=colour, fill=True, alpha=0.18)
        ax.stairs(density, edges, color=colour, linewidth=1.6, baseline=None)
        highest = max(highest, float(density.max()))
    ax.set(xlim=(0, 1), ylim=(0, 1.05 * highest))
    entries = [
        *zip(checked, _style.COLOURS, strict=False),
        (f"{level:.0%} band if calibrated, all bins", _style.FAINT),
    ]
    _style.headroom(ax, len(entries))
    _style.key(ax, entries, "upper left")
    _style.name(
        ax, x="PIT, the predicted probability of a smaller y", y="density", title=f"PIT histogram, n = {smallest:,}"
    )
    return ax
