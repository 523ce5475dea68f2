"""Coverage curves: do intervals of every nominal probability cover as often as they say?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from bayesnn.metrics import Array
from bayesnn.plots import _style
from bayesnn.plots._pits import binomial_band, checked_pits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = torch.arange(1, 100, dtype=torch.double) / 100


def coverage_curve(pits: Mapping[str, Array], *, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Share of targets inside their equal-tailed interval, |2 u_i - 1| <= nominal, at nominal
    levels .01 to .99.

    u_i = F_i(y_i) is the probability integral transform, `predictive(...).cdf(y)`. Below the
    diagonal intervals are too narrow. The band is where the share of as many targets lies with
    probability `level` at each nominal one if all is calibrated: exact binomial quantiles of the
    smallest set.

    Args:
        pits: {name: u [batch]}, between 0 and 1.
        level: Probability of the band, at each nominal level alone.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes. No units: both are probabilities.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing to draw; nan, or values outside [0, 1].

    Source: Dawid, J. R. Stat. Soc. A 147, 1984 (the transform).

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> coverage_curve({"mine": torch.linspace(0, 1, 50)}, ax=Figure().subplots()).get_title("left")
        'Coverage of equal-tailed intervals, n = 50'
    """
    checked = checked_pits("coverage_curve", pits, level)
    ax = _style.axes(ax, (4.4, 4.4))
    smallest = min(len(u) for u in checked.values())
    low, high = binomial_band(smallest, LEVELS, level)
    ax.fill_between(LEVELS.numpy(), low.numpy(), high.numpy(), color=_style.FAINT, alpha=0.18, linewidth=0)
    ax.plot([0, 1], [0, 1], color=_style.FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    colours = [_style.COLOURS[i % len(_style.COLOURS)] for i in range(len(checked))]
    for u, colour in zip(checked.values(), colours, strict=True):
        inside = (2 * u - 1).abs().unsqueeze(0) <= LEVELS.unsqueeze(1)
        ax.plot(LEVELS.numpy(), inside.double().mean(1).numpy(), color=colour, linewidth=1.6)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    entries = [*zip(checked, colours, strict=True), (f"{level:.0%} band if calibrated", _style.FAINT)]
    _style.key(ax, entries, "upper left")
    title = f"Coverage of equal-tailed intervals, n = {smallest:,}"
    _style.name(ax, x="nominal probability", y="share of targets inside", title=title)
    return ax
