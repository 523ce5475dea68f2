"""Metrics of a transfer study against the number of target examples, a curve for each method."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from bayesnn.transfer import Study

STYLES = {
    "RECaST": ("#D55E00", "o", 2.2),
    "source only": ("#000000", "s", 1.0),
    "RECaST, narrow priors": ("#D55E00", "x", 1.0),
    "RECaST, centred": ("#D55E00", "x", 1.0),
    "recalibrated": ("#0072B2", "D", 1.0),
    "straight line": ("#0072B2", "D", 1.0),
    "intercept and slope": ("#0072B2", "D", 1.0),
    "conformal": ("#CC79A7", "v", 1.0),
    "target only": ("#999999", "^", 1.0),
    "last layer": ("#009E73", "<", 1.0),
    "last-layer Laplace": ("#56B4E9", ">", 1.0),
    "fine-tuned": ("#E69F00", "p", 1.0),
    "pooled ridge": ("#8B5A2B", "h", 1.0),
}
"""Colour, mark and width: told apart without colours too."""


def curves(
    study: Study,
    panels: Mapping[str, Mapping[int, str]],
    metrics: Sequence[tuple[str, float, str]],
    *,
    methods: Sequence[str],
) -> Figure:
    """A column for each of `panels`, {title: {n: design}}, and a row for each (metric, level,
    label).

    Bars are two Monte-Carlo standard errors; a grey line is the nominal level of a coverage.
    """
    held = {row[:4]: row[4:6] for row in study.summary().rows}
    drawing = Figure(figsize=(3.2 * len(panels) + 0.6, 2.8 * len(metrics) + 0.5), layout="constrained")
    grid = drawing.subplots(len(metrics), len(panels), squeeze=False, sharex=True, sharey="row")
    for row, (metric, level, label) in zip(grid, metrics, strict=True):
        for ax, designs in zip(row, panels.values(), strict=True):
            for i, method in enumerate(methods):
                colour, mark, width = STYLES[method]
                found = [(n, *held[key]) for n, d in designs.items() if (key := (d, method, metric, level)) in held]
                found = [point for point in found if math.isfinite(point[1])]
                if not found:
                    continue
                # so that bars do not hide each other
                spread = 0.97 + 0.06 * i / max(len(methods) - 1, 1)
                n, mean, se = zip(*found, strict=True)
                bars = [2 * one if one == one else 0.0 for one in se]
                at = [spread * one for one in n]
                ax.errorbar(at, mean, bars, color=colour, marker=mark, ms=4, lw=width, elinewidth=0.8, label=method)
            if metric == "coverage":
                ax.axhline(level, color="0.7", lw=1, zorder=0)
            sizes = list(designs)
            ax.set(xscale="log", xticks=sizes, xticklabels=[str(size) for size in sizes])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel(label)
        if metric in ("rmse", "crps", "length", "interval_score"):
            row[0].set_yscale("log")
    for top, bottom, title in zip(grid[0], grid[-1], panels, strict=True):
        top.set_title(title, fontsize=10)
        bottom.set_xlabel("target examples")
    handles, labels = grid[0][0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=min(5, 2 * len(panels)), fontsize=9)
    return drawing
