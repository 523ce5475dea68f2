"""What a run prints and draws: ArviZ's summary, LOO and k-hat of each fit, and
the curves beside the truth.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from bayesnn.arviz import khat

from examples.studies.hierarchical_regression.harvests import (
    FIELDS,
    GRID,
    TRUTH,
    centred,
    true_response,
    true_weather,
)

COLOURS = ("C0", "C2", "C1")


def write(trees: Mapping[str, Any], effect: Tensor, out: Path) -> None:
    """Print every fit and the truth; a netCDF file for each fit, and curves.png."""
    for name, tree in trees.items():
        show(name, tree)
        tree.to_netcdf(str(out / f"{name.lower().replace(' ', '_')}.nc"))
    print("truth: " + ", ".join(f"{name} {value}" for name, value in TRUTH.items()))
    print("effects of the fields: " + ", ".join(f"{value:.2f}" for value in centred(effect)))
    figure(trees, effect).savefig(out / "curves.png", dpi=150)
    print(f"written to {out}: {', '.join(sorted(file.name for file in out.iterdir()))}")


def show(name: str, tree: Any) -> None:
    """Summary, LOO and k-hat."""
    import arviz

    print(f"\n{name}\n{'-' * len(name)}")
    print(arviz.summary(tree, var_names=["spread", "noise", "gain", "field"]).to_string())
    print(arviz.loo(tree))
    if "log_q" in tree["sample_stats"]:
        print(f"k-hat of the two guides: {khat(tree).round(2)} (below 0.7 their draws can stand for the posterior)")


def figure(trees: Mapping[str, Any], effect: Tensor) -> Figure:
    """The curves and the fields' effects: posterior means, central 90 %
    intervals, and the truth.
    """
    drawing = Figure(figsize=(12, 3.8), layout="constrained")
    axes = drawing.subplots(1, 3)
    grid = GRID.flatten().numpy()
    truths = {"weather_curve": true_weather(GRID), "response_curve": true_response(GRID)}
    for axis, (variable, truth) in zip(axes, truths.items(), strict=False):
        for colour, (name, tree) in zip(COLOURS, trees.items(), strict=True):
            draws = np.asarray(tree["posterior"][variable]).reshape(-1, len(grid))
            axis.fill_between(grid, *np.quantile(draws, (0.05, 0.95), axis=0), color=colour, alpha=0.25, lw=0)
            axis.plot(grid, draws.mean(0), color=colour, label=name)
        axis.plot(grid, centred(truth.flatten()), "k--", lw=1, label="truth")
        axis.set(xlabel="rain" if variable == "weather_curve" else "dose", ylabel="effect on the harvest")
    axes[0].legend(frameon=False)
    for offset, colour, tree in zip((-0.2, 0, 0.2), COLOURS, trees.values(), strict=True):
        draws = np.asarray(tree["posterior"]["field"]).reshape(-1, FIELDS)
        mean, place = draws.mean(0), np.arange(1, FIELDS + 1) + offset
        low, high = np.quantile(draws, (0.05, 0.95), axis=0)
        axes[2].errorbar(place, mean, (mean - low, high - mean), fmt="o", ms=4, color=colour)
    axes[2].plot(np.arange(1, FIELDS + 1), centred(effect), "k_", ms=14)
    axes[2].set(xlabel="field", ylabel="its effect, about their mean")
    return drawing
