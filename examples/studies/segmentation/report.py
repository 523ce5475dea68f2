"""Tables and the figure of the study: means over seeds with standard errors."""

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from bayesnn import metrics

from examples.studies.common import scoring, study
from examples.studies.segmentation.methods import CHOSEN, ENSEMBLE, MAP, PUBLISHED, SWEPT
from examples.studies.segmentation.scenes import UNSEEN, Scenes

Run = dict[str, dict[str, Any]]
"""One seed: {method: numbers}."""

SCORES = {"max": "1 - max p", "entropy": "entropy"}
RANKINGS = ("auroc", "aupr", "fpr95")
COLOURS = ListedColormap(["#E6E6E6", "#0072B2", "#E69F00", "#009E73", "#D55E00"])
"""Ground, ellipse, box, triangle; the unseen cross."""


def to_markdown(runs: Sequence[Run], unseen: Sequence[Scenes]) -> str:
    """Known shapes, the unseen shape, noise and cost, members; `unseen` are the scenes with
    crosses of every seed.
    """
    images = len(unseen[0])
    names = [name for name in runs[0] if not name.startswith(SWEPT)]
    share = mean(values(runs, MAP, "share"))
    chosen = "; ".join(
        f"{name}: {', '.join(run[name]['chosen'] for run in runs)}" for name in names if runs[0][name]["chosen"]
    )
    parts = [
        f"**{images} scenes of known shapes**\n",
        _quality(runs, names),
        f"**{images} scenes with one unseen shape each, its pixels positive**\n",
        _detection(runs, names, unseen),
        "**The known scenes under four times the noise, and what each method costs**\n",
        _noise_and_cost(runs, names),
        "**Members: how different they are**\n",
        _members(runs),
        f"Means over {len(runs)} seeds ± standard error; NLL in nats a pixel. ECE and disagreement on 20,000 random "
        f"pixels, the rest on all. An uninformative score has an AUPR of {share:.3f}. Among objects: without the "
        "ground. Training after the common start and prediction: CPU time as a multiple of MAP's, medians over the "
        f"seeds. Chosen by seed: {chosen}.\n",
    ]
    return "\n".join(parts)


def _quality(runs: Sequence[Run], names: Sequence[str]) -> str:
    header = ["method", "mIoU (%)", "mIoU - MAP's", "pixel accuracy (%)", "NLL", "NLL - MAP's", "ECE", "confidence (%)"]
    rows = []
    for name in names:
        more = [100 * (run[name]["miou"] - run[MAP]["miou"]) for run in runs]
        less = [run[name]["nll"] - run[MAP]["nll"] for run in runs]
        cells = [name, _percent(runs, name, "miou"), "" if name == MAP else study.cell(more, 1, sign=True)]
        cells += [_percent(runs, name, "accuracy"), study.cell(values(runs, name, "nll"), 3)]
        cells += ["" if name == MAP else study.cell(less, 3, sign=True), study.cell(values(runs, name, "ece"), 3)]
        rows.append([*cells, _percent(runs, name, "confidence")])
    return scoring.to_markdown(header, rows)


def _detection(runs: Sequence[Run], names: Sequence[str], unseen: Sequence[Scenes]) -> str:
    header = ["method"] + [f"{what}, {score}" for what in ("AUROC", "AUPR", "FPR95") for score in SCORES.values()]
    header += ["AUROC, information", "AUROC among objects, entropy", "AUROC among objects, information"]
    rows = []
    for name in names:
        cells = [study.cell(values(runs, name, f"{what}_{score}"), 3) for what in RANKINGS for score in SCORES]
        for key in ("auroc_information", "objects_entropy", "objects_information"):
            cells += [study.cell(values(runs, name, key), 3) if key in runs[0][name] else ""]
        rows.append([name, *cells])
    oracle = [any_object(own.y == UNSEEN, own.y > 0) for own in unseen]
    cells = [study.cell([each[what] for each in oracle], 3) for what in RANKINGS for _ in SCORES]
    rows.append(["true labels: ground or object", *cells, "", "0.500", ""])
    return scoring.to_markdown(header, rows)


def any_object(unseen: Tensor, objects: Tensor) -> dict[str, float]:
    """The score that knows exactly where objects are, and of no object whether
    it was seen before.
    """
    pair = objects[~unseen].double(), objects[unseen].double()
    options: dict[str, Any] = {"resamples": 0}
    return {
        "auroc": metrics.auroc(*pair).value,
        "aupr": metrics.aupr(*pair, **options).value,
        "fpr95": metrics.fpr95(*pair, **options).value,
    }


def _noise_and_cost(runs: Sequence[Run], names: Sequence[str]) -> str:
    header = ["method", "mIoU (%), noise", "NLL, noise", "ECE, noise", "parameters", "training", "prediction"]
    rows = []
    for name in names:
        cells = [name, _percent(runs, name, "noisy_miou"), study.cell(values(runs, name, "noisy_nll"), 3)]
        cells += [study.cell(values(runs, name, "noisy_ece"), 3), f"{runs[0][name]['parameters']:,}"]
        times = [[run[name][key] / run[MAP][key] for run in runs] for key in ("seconds", "predict_seconds")]
        rows.append([*cells, *(f"{median(ratios):.1f}" for ratios in times)])
    return scoring.to_markdown(header, rows)


def _members(runs: Sequence[Run]) -> str:
    header = ["method", "NLL", "draws disagree (% of pixels)", "spread of r̂ between members", "of one member's draws"]
    header += ["KL of a layer's code (nats)"]
    rows = []
    for name in [ENSEMBLE, PUBLISHED, *(name for name in runs[0] if name.startswith(SWEPT))]:
        cells = [name, study.cell(values(runs, name, "nll"), 3), _percent(runs, name, "disagreement")]
        layers = [[run[name]["layers"][key] for run in runs] for key in ("between", "within", "kl")]
        rows.append(cells + [study.cell(each, 3) for each in layers])
    return scoring.to_markdown(header, rows)


def values(runs: Sequence[Run], name: str, column: str) -> list[float]:
    """A number of each seed."""
    return [run[name][column] for run in runs]


def _percent(runs: Sequence[Run], name: str, column: str) -> str:
    return study.cell([100 * value for value in values(runs, name, column)], 1)


def figure(run: Run, unseen: Scenes) -> Figure:
    """A row a scene: image, truth, then prediction, entropy and mutual
    information of three methods.
    """
    methods = {"MAP": MAP, "BatchEnsemble": ENSEMBLE, "LP-BNN": CHOSEN}
    shown = len(run[MAP]["maps"]["predicted"])
    drawing = Figure(figsize=(13.0, 1.3 * shown + 0.5), layout="constrained")
    panels = drawing.subplots(shown, 10, squeeze=False)
    highest = {
        what: max(max(map(max, image)) for name in methods.values() for image in run[name]["maps"][what])
        for what in ("entropy", "information")
    }
    for i, row in enumerate(panels):
        places = iter(row)
        _draw(next(places), unseen.x[i].movedim(0, -1).numpy(), "image", i)
        _draw(next(places), unseen.y[i].numpy(), "truth", i, cmap=COLOURS, vmin=0, vmax=UNSEEN)
        for label, name in methods.items():
            found = {what: value[i] for what, value in run[name]["maps"].items()}
            ax = next(places)
            _draw(ax, found["predicted"], f"{label}\nprediction", i, cmap=COLOURS, vmin=0, vmax=UNSEEN)
            for what in ("entropy", "information") if name != MAP else ("entropy",):
                ax = next(places)
                _draw(ax, found[what], f"{label}\n{what}", i, cmap="magma", vmin=0, vmax=highest[what])
                ax.contour((unseen.y[i] == UNSEEN).numpy(), levels=[0.5], colors="white", linewidths=0.7)
    return drawing


def _draw(ax: Axes, image: Any, title: str, row: int, **options: Any) -> None:
    ax.imshow(image, interpolation="nearest", **options)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if row == 0:
        ax.set_title(title, fontsize=8)
