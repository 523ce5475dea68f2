"""Table and figure of the study: means over seeds with standard errors."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from examples.studies.common import scoring, study
from examples.studies.common.heads import KL_WEIGHTS, LATENTS

Run = dict[str, dict[str, Any]]
"""One seed: {method: numbers}."""

COOLED, LINEAR = "MAP, one temperature", "last layer trained anew"
SWEPT = "sweep: "
COLOURS = ("#0072B2", "#D55E00")
TICKS = (0.25, 0.35, 0.5, 1.0, 2.0)


def swept(latent: int, kl_weight: float) -> str:
    """The name of one point of the sweep over KL weights."""
    return f"{SWEPT}Z = {latent}, {kl_weight:g}"


def to_markdown(runs: Sequence[Run]) -> str:
    """One line a method, without the points of the sweep."""
    header = ["method", "accuracy (%)", "NLL", "NLL - MAP's", "ECE", "ECE / MAP's", "confidence - accuracy"]
    header += ["AUROC letters", "AUROC rotated", "training"]
    rows = []
    for name in [name for name in runs[0] if not name.startswith(SWEPT)]:
        low, high = (study.average(values(runs, name, f"ece_{end}"))[0] for end in ("low", "high"))
        ratio = [run[name]["ece"] / run["MAP"]["ece"] for run in runs]
        gap = [run[name]["confidence"] - run[name]["accuracy"] for run in runs]
        times = median(run[name]["seconds"] / run["MAP"]["seconds"] for run in runs)
        cells = [name, study.cell([100 * value for value in values(runs, name, "accuracy")], 2)]
        cells += [study.cell(values(runs, name, "nll"), 3)]
        less = [run[name]["nll"] - run["MAP"]["nll"] for run in runs]
        cells += ["" if name == "MAP" else study.cell(less, 3, sign=True)]
        cells += [f"{study.cell(values(runs, name, 'ece'), 4)} [{low:.3f}, {high:.3f}]"]
        cells += ["" if name == "MAP" else study.cell(ratio, 2), study.cell(gap, 3, sign=True)]
        cells += [study.cell(values(runs, name, f"auroc_{kind}"), 3) for kind in ("letters", "rotated_digits")]
        rows.append([*cells, f"{times:.2f}" if times == times else ""])
    floor = study.average(values(runs, "MAP", "ece_noise_floor"))[0]
    note = (
        f"\nMeans over {len(runs)} seeds ± standard error, in nats; brackets: the mean of the seeds' 95 % intervals. A "
        f"calibrated predictor with MAP's confidences shows an ECE of {floor:.3f} on as many images. Training: CPU "
        "time of both stages as a multiple of the first's, median over the seeds, without the search over KL weights.\n"
    )
    return scoring.to_markdown(header, rows) + note


def values(runs: Sequence[Run], name: str, column: str) -> list[float]:
    """A number of each seed."""
    return [run[name][column] for run in runs]


def figure(runs: Sequence[Run]) -> Figure:
    """NLL, ECE and over-confidence against the weight of the KL divergence."""
    drawing = Figure(figsize=(11.0, 3.4), layout="constrained")
    panels = drawing.subplots(1, 3)
    columns = ("nll", "ece", "gap")
    labels = ("NLL (nats)", "ECE", "confidence - accuracy")
    for ax, column, label in zip(panels, columns, labels, strict=True):
        for latent, colour in zip(LATENTS, COLOURS, strict=False):
            found = [study.average(_column(runs, swept(latent, weight), column)) for weight in KL_WEIGHTS]
            ax.errorbar(
                KL_WEIGHTS, [value for value, _ in found], [error for _, error in found],
                fmt="o-", color=colour, markersize=4, label=f"V-TST, Z = {latent}",
            )  # fmt: skip
            ax.axvline(1 / latent, color=colour, linestyle=":", linewidth=1.2)
            ax.axhline(
                study.average(_column(runs, f"TST, Z = {latent}", column))[0],
                color=colour, linestyle="--", linewidth=1.0, label=f"TST, Z = {latent}",
            )  # fmt: skip
        for name, shade in (("MAP", "#222222"), (COOLED, "#999999")):
            ax.axhline(study.average(_column(runs, name, column))[0], color=shade, linewidth=1.0, label=name)
        ax.set(xscale="log", xlabel="KL weight (dotted: 1 / Z)", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set(yscale="log", yticks=TICKS, yticklabels=[f"{tick:g}" for tick in TICKS])
    panels[0].minorticks_off()
    panels[0].legend(frameon=False, fontsize=7)
    return drawing


def _column(runs: Sequence[Run], name: str, column: str) -> list[float]:
    if column == "gap":
        return [run[name]["confidence"] - run[name]["accuracy"] for run in runs]
    return values(runs, name, column)
