"""The rejection curve: what is gained by passing the most uncertain examples on
to somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bayesnn.metrics import Array, aurc, risk_coverage
from bayesnn.plots import _style

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes


def rejection_curve(
    methods: Mapping[str, tuple[Array, Array]],
    *,
    ylabel: str = "error rate of the examples kept",
    title: str = "Errors left when the most uncertain examples are rejected",
    resamples: int = 1000,
    generator: torch.Generator | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Mean loss of the share c of examples with the smallest uncertainty, against c (the
    risk-coverage curve).

    Lower is better; all examples are kept at the right end, where the curve shows the plain error
    rate. Shares below 2 % or 10 examples are not drawn: one mistake decides them. Names come with
    AURC, the mean height, and its error.

    Args:
        methods: Name -> `(scores, losses)`, both [batch]: uncertainty (larger is more uncertain)
            and per-example loss, e.g. `(metrics.entropy(probs), probs.argmax(-1) != labels)`.
        ylabel: Name and unit of the loss.
        title: What is seen.
        resamples: Bootstrap resamples behind the errors of the AURC; 0 leaves them out.
        generator: Source of the resamples; by default one of our own with a fixed seed.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes; x is the share kept, y in the unit of the losses.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: No method, nan, shapes that do not fit, or more methods than colours.

    Source: El-Yaniv and Wiener, JMLR 11, 2010; Geifman and El-Yaniv, NeurIPS 2017,
    arXiv:1705.08500.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> scores = torch.arange(100.0)
        >>> ax = rejection_curve({"Laplace": (scores, scores > 90)}, ax=Figure().subplots())
        >>> ax.lines[0].get_xydata()[-1].tolist()
        [1.0, 0.09]
    """
    _style.check_colours("rejection_curve", methods)
    curves = {name: risk_coverage(*pair) for name, pair in methods.items()}
    areas = {name: aurc(*pair, resamples=resamples, generator=generator) for name, pair in methods.items()}
    ax = _style.axes(ax)
    highest = lowest = 0.0
    for curve, colour in zip(curves.values(), _style.COLOURS, strict=False):
        coverage, risk = curve.coverage.cpu().numpy(), curve.risk.cpu().numpy()
        start = min(max(9, len(risk) // 50), len(risk) - 1)
        ax.plot(coverage[start:], risk[start:], color=colour, linewidth=1.7)
        highest, lowest = max(highest, risk[start:].max()), min(lowest, risk[start:].min())
    ax.set_xlim(0, 1)
    # Zero errors is a height that means something.
    ax.set_ylim(lowest, highest * 1.05 if highest > 0 else 1)
    _style.headroom(ax, len(methods))
    entries = [
        (f"{name}, AURC {area}", colour) for (name, area), colour in zip(areas.items(), _style.COLOURS, strict=False)
    ]
    _style.key(ax, entries, "upper left")
    _style.name(ax, x="coverage (share of examples kept)", y=ylabel, title=title)
    return ax
