"""The pictures of the page, each a Matplotlib figure."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from bayesnn import metrics, plots
from bayesnn.fit import History

from examples.studies.common.choice import SCALES, Choice
from examples.studies.common.datasets import LETTERS, Sets
from examples.studies.common.scoring import SURE, Predictions, sure_and_wrong

FAINT, BLUE, VERMILION = "#767676", "#0072B2", "#D55E00"


def draw_all(
    sets: Sets,
    history: History,
    choices: Mapping[str, Choice],
    evidence: Mapping[str, float],
    predictions: Mapping[str, Predictions],
) -> dict[str, Figure]:
    """{file name without ending: figure}."""
    pictures: dict[str, Callable[[], Figure]] = {
        "training": lambda: _training(history),
        "prior": lambda: _prior(choices, evidence),
        "reliability": lambda: _reliability(sets, predictions),
        "outside": lambda: _outside(predictions),
        "rejection": lambda: _rejection(sets, predictions),
        "images": lambda: _images(sets, predictions),
    }
    return {name: picture() for name, picture in tqdm(pictures.items(), desc="figures", unit="figure")}


def _training(history: History) -> Figure:
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    ax = figure.subplots()
    plots.training_curve(history, title="Training of the first network", ax=ax)
    ax.set_yscale("log")
    return figure


def _prior(choices: Mapping[str, Choice], evidence: Mapping[str, float]) -> Figure:
    figure = Figure(figsize=(5.2 * len(choices), 4.0), layout="constrained")
    panels: Any = figure.subplots(1, len(choices), squeeze=False, sharey=True)[0]
    without = max(choice.without for choice in choices.values())
    lowest = min(min(choice.nll) for choice in choices.values())
    for ax, (name, choice) in zip(panels, choices.items(), strict=True):
        ax.axhline(choice.without, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), label="MAP")
        ax.plot(SCALES, choice.nll, color=BLUE, linewidth=1.8, label="Laplace")
        ax.plot(choice.scale, min(choice.nll), "o", color=BLUE, markersize=8, label=f"chosen, {choice.scale:.2g}")
        ax.axvline(evidence[name], color=VERMILION, linewidth=1.4, label=f"largest evidence, {evidence[name]:.2g}")
        ax.set(xscale="log", ylim=(lowest - 0.15 * (without - lowest), without + 0.8 * (without - lowest)))
        ax.set_xlabel("prior scale (standard deviation of a weight)")
        ax.set_title(name, loc="left", fontsize=11, pad=38)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9, borderaxespad=0.2)
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
    """Mistakes that the network makes with confidence, and letters that it takes for digits; the
    first in the set.
    """
    (first, before), (second, after) = list(predictions.items())[:2]
    assert sets.test.y is not None
    y = sets.test.y.cpu()
    figure = Figure(figsize=(1.45 * count, 5.6), layout="constrained")
    rows: Any = figure.subfigures(2, 1)
    for row, kind, what in ((rows[0], "test", "wrong test digits"), (rows[1], LETTERS, "letters")):
        p, q = before[kind].mean(0), after[kind].mean(0)
        sure = [sure_and_wrong(draws, y if kind == "test" else None) for draws in (before[kind], after[kind])]
        counts = f"{int(sure[0].sum())} by {first}, {int(sure[1].sum())} by {second}"
        words = f"{what} read with more than {SURE:.0%} confidence: {counts}"
        row.suptitle(words[0].upper() + words[1:], x=0.01, ha="left", fontsize=11)
        cells: Any = row.subplots(1, count)
        for cell in cells:
            cell.axis("off")
        for cell, i in zip(cells, sure[0].nonzero().flatten().tolist(), strict=False):
            cell.imshow(sets.everywhere[kind].x[i, 0].cpu(), cmap="gray_r", vmin=0, vmax=1)
            cell.set_title(f"{p[i].argmax()} with {p[i].amax():.1%}", fontsize=9, color=VERMILION)
            cell.text(
                0.5, -0.05, f"{q[i].argmax()} with {q[i].amax():.0%}",
                transform=cell.transAxes, ha="center", va="top", fontsize=9, color=BLUE,
            )  # fmt: skip
    return figure
