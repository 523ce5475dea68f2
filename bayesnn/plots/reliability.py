"""The reliability diagram: is a confidence of 80 % right in 80 % of the cases?"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from bayesnn.metrics import Array, Estimate, ece
from bayesnn.plots import _style

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes


def reliability_diagram(
    probs: Array,
    labels: Array,
    *,
    bins: int = 15,
    level: float = 0.95,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against mean confidence in equal-width bins of the top label, above the number of
    examples in each bin.

    On the diagonal confidence is earned; below it lies overconfidence. The band is Wilson's
    interval of every bin's accuracy. The corner gives the ECE beside its noise floor, what a
    perfectly calibrated predictor would show.

    Args:
        probs: Mean predictive probabilities [batch, class].
        labels: Class numbers [batch].
        bins: Number of bins (left, right] on [0, 1].
        level: Probability of the intervals.
        resamples: Resamples behind the ECE's error and floor; 0 leaves both out.
        generator: Source of the resamples; by default one of our own with a fixed seed.
        ax: Where to draw; a new figure by default. The strip of counts lies beneath it, for which
            a figure with `layout="constrained"` makes room.

    Returns:
        The axes of the diagram; the strip of counts is `ax.child_axes[0]`. No units: both axes are
        probabilities.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: Labels that are not integers.
        ValueError: nan, shapes that do not fit, not probabilities, or a label outside the classes.

    Source: Murphy and Winkler, J. R. Stat. Soc. C 26, 1977; Bröcker and Smith, Weather and
    Forecasting 22, 2007.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> probs, labels = torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([0, 1])
        >>> reliability_diagram(probs, labels, ax=Figure().subplots()).get_title("left")
        'Accuracy at each confidence, n = 2'
    """
    error = ece(probs, labels, bins=bins, level=level, resamples=resamples, generator=generator)
    table, kept = error.bins, error.bins.count > 0
    x, y, low, high = (part[kept].cpu().numpy() for part in (table.confidence, table.accuracy, table.low, table.high))
    ax = _style.axes(ax, (4.6, 4.9))
    ax.plot([0, 1], [0, 1], color=_style.FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.fill_between(x, low, high, color=_style.BLUE, alpha=0.18, linewidth=0)
    ax.vlines(x, low, high, color=_style.BLUE, alpha=0.45, linewidth=1)
    ax.plot(x, y, color=_style.BLUE, linewidth=1.6)
    # Points at 0 and 1 are whole.
    ax.scatter(x, y, s=24, color=_style.BLUE, edgecolor="white", clip_on=False, zorder=3)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.text(0.05, 0.015, "calibrated", color=_style.FAINT, fontsize=8, va="bottom")
    entries = [(f"ECE {Estimate.__str__(error)}", _style.BLUE)]
    if resamples:
        entries.append((f"{error.noise_floor:.2g} if calibrated", _style.FAINT))
    _style.key(ax, entries, "upper left")
    _style.name(
        ax,
        x="",
        y=f"accuracy ({level:.0%} interval)",
        title=f"Accuracy at each confidence, n = {error.n:,}",
    )
    _counts(ax, table.edges.cpu().tolist(), table.count.cpu().tolist())
    return ax


def _counts(ax: Axes, edges: list[float], counts: list[int]) -> None:
    strip = ax.inset_axes((0, -0.28, 1, 0.21), sharex=ax)
    _style.dress(strip)
    widths = [right - left for left, right in pairwise(edges)]
    strip.bar(edges[:-1], counts, widths, align="edge", color=_style.FAINT, alpha=0.5, edgecolor="white", linewidth=0.6)
    strip.set_ylim(0, 1.1 * max(counts))
    strip.locator_params(axis="y", nbins=3, integer=True)
    ax.tick_params(labelbottom=False)
    _style.name(strip, x="confidence (probability of the predicted class)", y="examples", title="")
