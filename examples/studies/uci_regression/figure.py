"""The study in one picture: log densities beside MAP's, and coverage."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from examples.studies.common.study import average
from examples.studies.uci_regression.methods import METHODS
from examples.studies.uci_regression.study import NOMINAL, column
from examples.studies.uci_regression.tables import REFERENCE, Runs

FAINT, BLUE, VERMILION, GRID = "#767676", "#0072B2", "#D55E00", "#E6E6E6"


def draw(runs: Runs) -> Figure:
    """A row for each data set; dots are folds, bars means with standard errors."""
    figure = Figure(figsize=(10.5, 3.9 * len(runs)), layout="constrained")
    panels: Any = figure.subplots(len(runs), 2, squeeze=False, sharey=True)
    for (left, right), (name, of) in zip(panels, runs.items(), strict=True):
        others = [method.name for method in METHODS if method.name != REFERENCE]
        gains = {method: column(of, method, "log_likelihood", minus=REFERENCE) for method in others}
        _dots(left, {REFERENCE: [0.0] * len(of), **gains})
        left.axvline(0.0, color=FAINT, linewidth=1.0)
        left.set_xlabel("test log p(y) minus MAP's (nats)")
        left.set_title(name, loc="left", fontsize=11)
        _dots(right, {method.name: column(of, method.name, "coverage") for method in METHODS})
        right.axvline(NOMINAL, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)))
        right.set_xlabel(f"share of targets inside the {NOMINAL:.0%} interval")
    return figure


def _dots(ax: Any, values: dict[str, Sequence[float]]) -> None:
    for line, (method, of) in enumerate(values.items()):
        heads = next(one.heads for one in METHODS if one.name == method)
        colour = BLUE if heads == 1 else VERMILION
        ax.plot(of, [line] * len(of), "o", color=colour, markersize=3.5, alpha=0.3, markeredgewidth=0)
        mean, error = average(of)
        ax.errorbar(mean, line, xerr=error, fmt="D", color=colour, markersize=5, elinewidth=1.8, capsize=3)
    ax.set_yticks(range(len(values)), list(values), fontsize=9)
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.grid(axis="x", color=GRID, linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
