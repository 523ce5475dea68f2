"""The pictures of the page, each a Matplotlib figure."""

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure

from bayesnn import metrics, plots
from bayesnn.fit import History
from quickstart_parts.choice import SCALES, Choice
from quickstart_parts.datasets import LETTERS, Sets
from quickstart_parts.scoring import Predictions

INK, FAINT, BLUE, VERMILION, GREEN = "#222222", "#767676", "#0072B2", "#D55E00", "#009E73"


def draw_all(
    sets: Sets,
    history: History,
    choices: Mapping[str, Choice],
    evidence: Mapping[str, float],
    predictions: Mapping[str, Predictions],
) -> dict[str, Figure]:
    """{file name without ending: figure}."""
    return {
        "training": _training(history),
        "prior": _prior(choices, evidence),
        "reliability": _reliability(sets, predictions),
        "outside": _outside(predictions),
        "rejection": _rejection(sets, predictions),
        "images": _images(sets, predictions),
    }


def _training(history: History) -> Figure:
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    ax = figure.subplots()
    plots.training_curve(history, title="Training of the first network", ax=ax)
    ax.set_yscale("log")
    return figure


def _prior(choices: Mapping[str, Choice], evidence: Mapping[str, float]) -> Figure:
    figure = Figure(figsize=(5.2 * len(choices), 3.8), layout="constrained")
    panels: Any = figure.subplots(1, len(choices), squeeze=False, sharey=True)[0]
    highest = max(choice.without for choice in choices.values()) * 1.5
    for ax, (name, choice) in zip(panels, choices.items(), strict=True):
        ax.axhline(choice.without, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        ax.text(SCALES[0], choice.without, " without Laplace (MAP)", color=FAINT, fontsize=9, va="bottom")
        ax.plot(SCALES, choice.nll, color=BLUE, linewidth=1.8)
        ax.plot(choice.scale, min(choice.nll), "o", color=BLUE, markersize=8)
        ax.axvline(evidence[name], color=VERMILION, linewidth=1.4)
        ax.set(xscale="log", ylim=(None, highest), xlabel="prior scale (standard deviation of a weight)")
        ax.set_title(name, loc="left", fontsize=11)
        ax.text(0.98, 0.98, f"chosen: {choice.scale:.3g}", color=BLUE, fontsize=9, ha="right", va="top", transform=ax.transAxes)
        ax.text(
            0.98, 0.91, f"largest evidence: {evidence[name]:.3g}",
            color=VERMILION, fontsize=9, ha="right", va="top", transform=ax.transAxes,
        )  # fmt: skip
        ax.grid(color="#E6E6E6", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("validation NLL (nats)")
    return figure


def _reliability(sets: Sets, predictions: Mapping[str, Predictions]) -> Figure:
    figure = Figure(figsize=(4.1 * len(predictions), 5.0), layout="constrained")
    panels: Any = figure.subplots(1, len(predictions), squeeze=False)[0]
    assert sets.test.y is not None
    for ax, (name, of) in zip(panels, predictions.items(), strict=True):
        plots.reliability_diagram(of["test"].mean(0), sets.test.y.cpu(), ax=ax)
        ax.set_title(name, loc="left", fontsize=11)
    return figure


def _outside(predictions: Mapping[str, Predictions]) -> Figure:
    figure = Figure(figsize=(12.5, 3.7 * ((len(predictions) + 1) // 2)), layout="constrained")
    panels: Any = figure.subplots((len(predictions) + 1) // 2, 2, squeeze=False).flatten()
    for ax, (name, of) in zip(panels, predictions.items(), strict=False):
        scores = {kind: metrics.entropy(draws.mean(0)) for kind, draws in of.items()}
        plots.uncertainty_histograms({"test digits": scores.pop("test"), **scores}, title=name, ax=ax)
    for ax in panels[len(predictions) :]:
        ax.remove()
    return figure


def _rejection(sets: Sets, predictions: Mapping[str, Predictions]) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    assert sets.test.y is not None
    y, curves = sets.test.y.cpu(), {}
    for name, of in predictions.items():
        p = of["test"].mean(0)
        curves[name] = (metrics.entropy(p), p.argmax(-1) != y)
    plots.rejection_curve(curves, ax=figure.subplots())
    return figure


def _images(sets: Sets, predictions: Mapping[str, Predictions], count: int = 8) -> Figure:
    """The network's most confident mistakes, and the letters that it takes for digits with most confidence."""
    before, after = list(predictions.values())[:2]
    titles = list(predictions)[:2]
    figure = Figure(figsize=(1.45 * count, 5.4), layout="constrained")
    rows: Any = figure.subfigures(2, 1)
    assert sets.test.y is not None
    wrong = before["test"].mean(0).argmax(-1) != sets.test.y.cpu()
    for rowfigure, kind, eligible, words in (
        (rows[0], "test", wrong, "The most confident mistakes"),
        (rows[1], LETTERS, torch.ones(len(sets.outside[LETTERS].x), dtype=torch.bool), "The most confident readings of letters"),
    ):
        p, q = before[kind].mean(0), after[kind].mean(0)
        order = torch.where(eligible, p.amax(-1), -torch.inf).argsort(descending=True)[: min(count, int(eligible.sum()))]
        rowfigure.suptitle(f"{words} of {titles[0]}, and what {titles[1]} makes of them", x=0.01, ha="left", fontsize=11)
        cells: Any = rowfigure.subplots(1, count)
        for cell in cells:
            cell.axis("off")
        for cell, i in zip(cells, order.tolist(), strict=False):
            cell.imshow(sets.everywhere[kind].x[i, 0].cpu(), cmap="gray_r", vmin=0, vmax=1)
            cell.set_title(f"{p[i].argmax()} with {p[i].amax():.1%}", fontsize=9, color=VERMILION)
            cell.text(
                0.5, -0.05, f"{q[i].argmax()} with {q[i].amax():.0%}",
                transform=cell.transAxes, ha="center", va="top", fontsize=9, color=BLUE,
            )  # fmt: skip
    return figure
