"""Tables and the figure of the study: means over seeds with standard errors."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from examples.studies.common import scoring, study
from examples.studies.variational_digits.methods import MAP, NONE, POSTERIORS

Row = dict[str, Any]
Run = dict[str, Row]
"""One seed: {method: numbers}."""

COOLED = ", one temperature"
BAYES = ", KL weight 1"
CURVES = {
    MAP: "#222222",
    f"{MAP}{COOLED}": "#767676",
    "ensemble of 5": "#009E73",
    "mean-field": "#E69F00",
    "variational Laplace": "#0072B2",
    "MNVI": "#D55E00",
}
FAINT, GRID = "#767676", "#E6E6E6"


def values(runs: Sequence[Run], name: str, column: str, minus: str | None = None) -> list[float]:
    """A number of each seed, or its difference to that of another method in the same seed."""
    return [run[name][column] - (run[minus][column] if minus else 0.0) for run in runs]


def to_markdown(runs: Sequence[Run]) -> str:
    """Chosen settings, the same methods under the full KL divergence, and what was chosen."""
    names = [name for name in runs[0] if not name.endswith(BAYES)]
    bayes = [name for name in runs[0] if name.endswith(BAYES)]
    floor = study.average(values(runs, MAP, "ece_noise_floor"))[0]
    parts = [
        "**Hyper-parameters chosen by validation**\n",
        _table(runs, names),
        "**The same at KL weight 1: the posterior of the stated prior, untempered**\n",
        _table(runs, [MAP, *bayes]),
        "**What validation chose, by seed**\n",
        _choices(runs),
        f"Means over {len(runs)} seeds ± standard error, in nats; brackets: the mean of the seeds' 95 % intervals. A "
        f"calibrated predictor with MAP's confidences shows an ECE of {floor:.3f} on as many images. AUROC by "
        "predictive entropy, images from outside positive. Training and prediction: CPU time as a multiple of "
        "MAP's, medians over the seeds, without the search.\n",
    ]
    return "\n".join(parts)


def _table(runs: Sequence[Run], names: Sequence[str]) -> str:
    header = ["method", "NLL", "NLL - MAP's", "NLL - one temperature's", "ECE", "ECE - MAP's", "accuracy (%)"]
    header += ["AUROC letters", "AUROC rotated", "training", "prediction"]
    rows = []
    for name in names:
        low, high = (study.average(values(runs, name, f"ece_{end}"))[0] for end in ("low", "high"))
        cells = [
            name,
            study.cell(values(runs, name, "nll"), 3),
            _less(runs, name, "nll", MAP),
            _less(runs, name, "nll", f"{MAP}{COOLED}"),
        ]
        cells += [f"{study.cell(values(runs, name, 'ece'), 3)} [{low:.3f}, {high:.3f}]", _less(runs, name, "ece", MAP)]
        cells += [study.cell([100 * value for value in values(runs, name, "accuracy")], 1)]
        cells += [study.cell(values(runs, name, f"auroc_{kind}"), 3) for kind in ("letters", "rotated_digits")]
        rows.append([*cells, _times(runs, name, "seconds"), _times(runs, name, "predict_seconds")])
    return scoring.to_markdown(header, rows)


def _choices(runs: Sequence[Run]) -> str:
    header = ["method", "gain of the prior", "KL weight", "temperature", "learning rate"]
    rows = []
    for name in (MAP, f"{MAP}{COOLED}", f"{NONE}{COOLED}", "SWAG", *POSTERIORS):
        cells = [_each(runs, name, column) for column in ("gain", "kl_weight", "temperature", "rate")]
        rows.append([name, *cells])
    return scoring.to_markdown(header, rows)


def _each(runs: Sequence[Run], name: str, column: str) -> str:
    """What every seed chose; nothing where there was no choice."""
    found = [run[name].get(column, 0.0) for run in runs]
    fixed = column == "kl_weight" and name not in POSTERIORS
    return "" if fixed or not any(found) else ", ".join(f"{value:.3g}" for value in found)


def _less(runs: Sequence[Run], name: str, column: str, minus: str) -> str:
    return "" if name == minus else study.cell(values(runs, name, column, minus), 3, sign=True)


def _times(runs: Sequence[Run], name: str, column: str) -> str:
    return f"{median(run[name][column] / run[MAP][column] for run in runs):.1f}"


def figure(runs: Sequence[Run]) -> Figure:
    """NLL, ECE and reliability of all methods with chosen settings; those that are far off the
    scale are left out.
    """
    worst = 1.3 * max(study.average(values(runs, name, "nll"))[0] for name in (MAP, f"{MAP}{COOLED}"))
    names = [name for name in runs[0] if not name.endswith(BAYES)]
    names = [name for name in names if study.average(values(runs, name, "nll"))[0] <= worst]
    drawing = Figure(figsize=(12.0, 0.34 * len(names) + 1.6), layout="constrained")
    nll, ece, curves = drawing.subplots(1, 3, width_ratios=[1, 1, 1.1])
    for ax in (nll, ece, curves):
        ax.grid(color=GRID, linewidth=0.7)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    places = range(len(names))
    for place, name in zip(places, names, strict=True):
        colour = CURVES.get(name, FAINT)
        value, error = study.average(values(runs, name, "nll", None if name == MAP else MAP))
        nll.errorbar(0.0 if name == MAP else value, place, xerr=None if name == MAP else error, fmt="o", color=colour)
        value, low, high = (study.average(values(runs, name, column))[0] for column in ("ece", "ece_low", "ece_high"))
        ece.plot([low, high], [place, place], color=colour, linewidth=1.6)
        ece.plot(value, place, "o", color=colour)
        ece.plot(study.average(values(runs, name, "ece_noise_floor"))[0], place, "|", color=FAINT, markersize=10)
    nll.axvline(0.0, color=FAINT, linewidth=1.0)
    nll.set(yticks=list(places), yticklabels=names, xlabel="NLL minus MAP's (nats), ± standard error")
    ece.set(yticks=list(places), yticklabels=[], xlabel="ECE, 95 % interval; |: if calibrated", xlim=(0, None))
    nll.invert_yaxis()
    ece.invert_yaxis()
    _reliability(runs, names, curves)
    return drawing


def _reliability(runs: Sequence[Run], names: Sequence[str], ax: Any) -> None:
    ax.axhline(0.0, color=FAINT, linewidth=1.0)
    for name in names:
        if name not in CURVES:
            continue
        points = []
        for bin_ in range(len(runs[0][name]["bin_count"])):
            counts = [run[name]["bin_count"][bin_] for run in runs]
            if (total := sum(counts)) < 50 * len(runs):  # too few to say
                continue
            confidence, accuracy = (
                sum(n * run[name][f"bin_{part}"][bin_] for n, run in zip(counts, runs, strict=True)) / total
                for part in ("confidence", "accuracy")
            )
            points.append((confidence, accuracy - confidence))
        if points:
            ax.plot(*zip(*points, strict=True), "o-", color=CURVES[name], label=name, markersize=4)
    ax.set(xlabel="mean confidence in the bin", ylabel="accuracy minus confidence; below 0: too sure")
    ax.legend(frameon=False, fontsize=8)
