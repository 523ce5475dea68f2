"""One look for all figures, given to the artists of one axes at a time:
Matplotlib's global state is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, GRID = "#222222", "#767676", "#E6E6E6"
# Okabe and Ito's colours, told apart in all common forms of colour blindness; yellow, too pale for
# words, left out.
BLUE, VERMILION = "#0072B2", "#D55E00"
COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
SIZE = (5.2, 4.0)


def axes(ax: Axes | None, size: tuple[float, float] = SIZE) -> Axes:
    """The axes given, or those of a new figure of `size` inches; dressed either way."""
    if ax is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("bayesnn.plots needs matplotlib: pip install matplotlib (or bayesnn[all]).") from error
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    dress(ax)
    return ax


def dress(ax: Axes) -> None:
    """Light grid behind the data, two spines, quiet ticks."""
    ax.set_axisbelow(True)
    ax.grid(visible=True, color=GRID, linewidth=0.7)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
        spine.set_linewidth(0.8)
    ax.tick_params(colors=FAINT, labelcolor=INK, labelsize=9, length=3, width=0.8)


def name(ax: Axes, *, x: str, y: str, title: str, above: int = 0) -> None:
    """Axis labels with their units, and what is seen as a left-aligned title,
    over `above` lines of a legend.
    """
    ax.set_xlabel(x, color=INK, fontsize=10)
    ax.set_ylabel(y, color=INK, fontsize=10)
    ax.set_title(title, loc="left", color=INK, fontsize=11, pad=8 + 13 * above)


def key(ax: Axes, entries: Sequence[tuple[str, str]], corner: str) -> None:
    """Texts in the colours of what they name, stacked in a corner ("upper left" and so on) instead
    of a legend box.
    """
    top, left = "upper" in corner, "left" in corner
    for i, (text, colour) in enumerate(entries):
        line = i if top else len(entries) - 1 - i
        ax.annotate(
            text,
            xy=(0.02 if left else 0.98, 0.98 if top else 0.02),
            xycoords="axes fraction",
            xytext=(0, (-13 if top else 13) * line),
            textcoords="offset points",
            ha="left" if left else "right",
            va="top" if top else "bottom",
            color=colour,
            fontsize=9,
            # A thin halo of paper keeps the words legible where a curve passes behind them.
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
            zorder=5,
        )


def legend_above(ax: Axes, columns: int) -> int:
    """A frameless legend between the axes and their title; returns its number of lines."""
    entries = len(ax.get_legend_handles_labels()[0])
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderpad=0.2,
        borderaxespad=0,
        labelspacing=0.3,
    )
    return -(-entries // columns)


def headroom(ax: Axes, lines: int) -> None:
    """Raises the upper y limit so that `lines` lines of words in an upper
    corner cover little of the data.
    """
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + (high - low) * 0.055 * lines)


def check_colours(where: str, named: Sized) -> None:
    """At least one series, and no more than can be told apart."""
    if not len(named):
        raise ValueError(f"{where}: nothing to draw; give at least one named entry.")
    if len(named) > len(COLOURS):
        raise ValueError(
            f"{where}: {len(named)} entries, but only {len(COLOURS)} colours can be told apart; draw fewer at once."
        )
