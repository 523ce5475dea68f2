"""Histograms of an uncertainty score, in and out of distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bayesnn.metrics import Array, auroc
from bayesnn.plots import _style
from bayesnn.plots._arrays import vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def uncertainty_histograms(
    scores: Mapping[str, Array],
    *,
    bins: int = 40,
    xlabel: str = "predictive entropy (nats)",
    title: str = "Uncertainty in and out of distribution",
    ax: Axes | None = None,
) -> Axes:
    """Share of each data set's examples in common bins of the score; the first set is the
    in-distribution one.

    Every other set's name comes with the AUROC of telling it from the first (OOD positive, larger
    score = more uncertain) and its standard error.

    Args:
        scores: Name of the data set -> score [batch]; real and finite.
        bins: Number of bins over the range of all scores.
        xlabel: Name and unit of the score.
        title: What is seen.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes; y is a share of the data set, so that sets of different sizes compare.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: No data set, an empty one, nan, or more sets than colours.

    Source: Hendrycks and Gimpel, ICLR 2017, arXiv:1610.02136.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> scores = {"digits": torch.rand(100), "letters": 1 + torch.rand(50)}
        >>> ax = uncertainty_histograms(scores, ax=Figure().subplots())
        >>> [text.get_text() for text in ax.texts]
        ['digits, n = 100', 'letters, n = 50, AUROC 1 [0.9705, 1]']
    """
    where = "uncertainty_histograms"
    _style.check_colours(where, scores)
    values = {name: vector(where, f"scores[{name!r}]", value) for name, value in scores.items()}
    pooled = np.concatenate(list(values.values()))
    edges = np.histogram_bin_edges(pooled, bins=bins)
    first = next(iter(values.values()))
    ax = _style.axes(ax, (6.0, 3.6))
    entries = []
    for i, (name, value) in enumerate(values.items()):
        share = np.histogram(value, edges)[0] / len(value)
        colour = _style.COLOURS[i]
        ax.stairs(share, edges, color=colour, fill=True, alpha=0.18)
        ax.stairs(share, edges, color=colour, linewidth=1.5)
        text = f"{name}, n = {len(value):,}"
        entries.append((text if i == 0 else f"{text}, AUROC {auroc(first, value)}", colour))
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    # The words go where fewer examples are, and above them.
    left_half = float((pooled < (edges[0] + edges[-1]) / 2).mean())
    _style.headroom(ax, len(entries))
    _style.key(ax, entries, "upper right" if left_half >= 0.5 else "upper left")
    _style.name(ax, x=xlabel, y="share of the data set in a bin", title=title)
    return ax
