"""Tables and the figure of the study: means over seeds with standard errors."""

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from matplotlib.figure import Figure

from examples.studies.common import scoring, study
from examples.studies.lp_bnn_digits.judged import SHIFTS
from examples.studies.lp_bnn_digits.members import KL_WEIGHTS, PUBLISHED, SWEPT

Run = dict[str, dict[str, Any]]
"""One seed: {method: numbers}."""

MAP = "MAP"
TICKS = (0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
CURVES = {
    "BatchEnsemble": "#222222",
    PUBLISHED: "#D55E00",
    f"{SWEPT}1": "#009E73",
    f"{SWEPT}0.01": "#0072B2",
}


def to_markdown(runs: Sequence[Run]) -> str:
    """Quality, shift and cost, LP-BNN by KL weight, what was chosen."""
    names = [name for name in runs[0] if not name.startswith(SWEPT)]
    floor = study.average(values(runs, MAP, "ece_noise_floor"))[0]
    parts = [
        "**4,000 test images and 1,000 letters**\n",
        _quality(runs, names),
        "**The same network under shift, and what each method costs**\n",
        _shift_and_cost(runs, names),
        "**LP-BNN by KL weight**\n",
        _swept(runs),
        "**What validation chose, by seed**\n",
        _choices(runs, names),
        f"Means over {len(runs)} seeds ± standard error, in nats; brackets: the mean of the seeds' 95 % intervals. A "
        f"calibrated predictor with MAP's confidences shows an ECE of {floor:.3f} on as many images. AUROC and FPR95 "
        "by predictive entropy, letters positive. Shift: means over five severities of 500 images. Training and "
        "prediction: CPU time as a multiple of MAP's, medians over the seeds, without the search.\n",
    ]
    return "\n".join(parts)


def _quality(runs: Sequence[Run], names: Sequence[str]) -> str:
    header = ["method", "accuracy (%)", "NLL", "NLL - MAP's", "ECE", "ECE / MAP's", "AUROC", "FPR95"]
    rows = []
    for name in names:
        low, high = (study.average(values(runs, name, f"ece_{end}"))[0] for end in ("low", "high"))
        less = [run[name]["nll"] - run[MAP]["nll"] for run in runs]
        ratio = [run[name]["ece"] / run[MAP]["ece"] for run in runs]
        cells = [name, study.cell([100 * value for value in values(runs, name, "accuracy")], 2)]
        cells += [study.cell(values(runs, name, "nll"), 3), "" if name == MAP else study.cell(less, 3, sign=True)]
        cells += [f"{study.cell(values(runs, name, 'ece'), 4)} [{low:.3f}, {high:.3f}]"]
        cells += ["" if name == MAP else study.cell(ratio, 2)]
        rows.append([*cells, study.cell(values(runs, name, "auroc"), 3), study.cell(values(runs, name, "fpr95"), 3)])
    return scoring.to_markdown(header, rows)


def _shift_and_cost(runs: Sequence[Run], names: Sequence[str]) -> str:
    header = ["method"] + [f"{what}, {kind}" for kind in SHIFTS for what in ("NLL", "ECE")]
    header += ["parameters", "training", "prediction"]
    rows = []
    for name in names:
        cells = [name]
        for kind in SHIFTS:
            for what, places in (("nll", 2), ("ece", 3)):
                cells.append(study.cell([mean(run[name][f"{kind}_{what}"]) for run in runs], places))
        rows.append([*cells, f"{runs[0][name]['parameters']:,}", *(_times(runs, name, "", "predict_"))])
    return scoring.to_markdown(header, rows)


def _swept(runs: Sequence[Run]) -> str:
    header = ["KL weight", "NLL", "ECE", "members disagree (%)", "spread of r̂ between members", "of one member's draws"]
    header += ["KL of all codes"]
    rows = []
    for label, name in [("as published", PUBLISHED), *((f"{weight:g}", f"{SWEPT}{weight:g}") for weight in KL_WEIGHTS)]:
        last = [run[name]["history"][-1] for run in runs]
        cells = [label, study.cell(values(runs, name, "nll"), 3), study.cell(values(runs, name, "ece"), 4)]
        cells += [study.cell([100 * epoch["disagreement"] for epoch in last], 2)]
        cells += [study.cell([epoch[key] for epoch in last], 3) for key in ("between", "within")]
        rows.append([*cells, study.cell([epoch["kl"] for epoch in last], 2)])
    return scoring.to_markdown(header, rows)


def _choices(runs: Sequence[Run], names: Sequence[str]) -> str:
    rows = [[name, ", ".join(run[name]["chosen"] for run in runs)] for name in names if runs[0][name]["chosen"]]
    return scoring.to_markdown(["method", "chosen"], rows)


def values(runs: Sequence[Run], name: str, column: str) -> list[float]:
    """A number of each seed."""
    return [run[name][column] for run in runs]


def _times(runs: Sequence[Run], name: str, *prefixes: str) -> list[str]:
    columns = [f"{prefix}seconds" for prefix in prefixes]
    return [f"{median(run[name][column] / run[MAP][column] for run in runs):.1f}" for column in columns]


def figure(runs: Sequence[Run]) -> Figure:
    """Over the epochs: how often members disagree, how far their vectors lie apart, and the noise
    of one member's.
    """
    drawing = Figure(figsize=(11.0, 3.4), layout="constrained")
    panels = drawing.subplots(1, 3)
    keys = ("disagreement", "between", "within")
    labels = ("pairs of members that disagree", "spread of E[r̂] between members", "spread of r̂ of one member")
    for ax, key, label in zip(panels, keys, labels, strict=True):
        for name, colour in CURVES.items():
            if name in runs[0]:
                epochs = range(1, 1 + len(runs[0][name]["history"]))
                curve = [study.average([run[name]["history"][i - 1][key] for run in runs])[0] for i in epochs]
                ax.plot(epochs, curve, color=colour, label=name.replace(SWEPT, "LP-BNN, KL weight "))
        ax.set(xlabel="passes over the images", ylabel=label)
        if key == "disagreement":
            ax.set(yscale="log", yticks=TICKS, yticklabels=[f"{tick:g}" for tick in TICKS])
            ax.minorticks_off()
        else:
            ax.set(ylim=(0, None))
        ax.spines[["top", "right"]].set_visible(False)
    [ensemble] = [name for name in runs[0] if name.startswith("ensemble")]
    apart = study.average([run[ensemble]["history"][-1]["disagreement"] for run in runs])[0]
    panels[0].axhline(apart, color="#999999", linestyle="--", linewidth=1.2, label=ensemble)
    panels[0].legend(frameon=False, fontsize=7.5)
    return drawing
