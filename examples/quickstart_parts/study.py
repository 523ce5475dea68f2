"""Means over seeds with standard errors, and paired differences to MAP."""

import math
from collections.abc import Sequence
from functools import partial
from statistics import mean, stdev

from quickstart_parts import scoring

Run = dict[str, dict[str, dict[str, float]]]
"""One seed: {setting: {method: {column: number}}}."""

SETTINGS = {
    "wide prior": "Networks as one gets them: trained under N(0, 1)",
    "validated prior": "Networks whose own prior scale was cross-validated",
}
PLAIN = ("accuracy", "nll", "brier", "ece", "ece_noise_floor")
PAIRED = ("accuracy", "nll", "brier", "ece")
KINDS = ("letters", "rotated_digits", "other_digits")


def average(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over seeds (nan for a single seed)."""
    return mean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def column(runs: Sequence[Run], setting: str, method: str, name: str, *, minus: str | None = None) -> list[float]:
    """A number of each seed, or its difference to that of another method in the same seed."""
    values = [run[setting][method][name] for run in runs]
    if minus is None:
        return values
    return [value - run[setting][minus][name] for value, run in zip(values, runs, strict=True)]


def to_csv(runs: Sequence[Run]) -> str:
    """Long lines: everything that was measured."""
    lines = ["networks,method,quantity,mean,standard_error,seeds"]
    for setting in SETTINGS:
        for method in runs[0][setting]:
            plain = [name for name in runs[0][setting][method] if not name.endswith(("_se", "_low", "_high"))]
            found = {name: column(runs, setting, method, name) for name in plain if name != "nll_minus_map"}
            if method != "MAP":
                found |= {f"{name}_minus_map": column(runs, setting, method, name, minus="MAP") for name in PAIRED}
            for name, values in found.items():
                value, error = average(values)
                lines.append(f'{setting},"{method}",{name},{value:.6g},{error:.3g},{len(runs)}')
    return "\n".join(lines) + "\n"


def to_markdown(runs: Sequence[Run]) -> str:
    """A table for each setting, with its caption."""
    header = ["method", "accuracy (%)", "NLL (nats)", "NLL - MAP's", "Brier", "ECE", "ECE - MAP's", "ECE if calibrated"]
    header += [f"AUROC {kind.replace('_', ' ')}" for kind in KINDS]
    parts = []
    for setting, caption in SETTINGS.items():
        rows = []
        for method in runs[0][setting]:
            cell, differs = partial(_cell, runs, setting, method), method != "MAP"
            cells = [method, cell("accuracy", 2, times=100.0), cell("nll", 3)]
            cells += [cell("nll", 3, minus="MAP") if differs else ""]
            cells += [cell("brier", 4), cell("ece", 4), cell("ece", 4, minus="MAP") if differs else ""]
            cells += [f"{average(column(runs, setting, method, 'ece_noise_floor'))[0]:.4f}"]
            rows.append(cells + [cell(f"auroc_{kind}", 3) for kind in KINDS])
        parts.append(f"**{caption}**\n\n{scoring.to_markdown(header, rows)}")
    scales = [run["prior scale of training"]["validated prior"]["scale"] for run in runs]
    note = (
        f"Means over {len(runs)} seeds ± standard error; each seed is another split of the 5,000 images and other "
        f"networks. Differences are to MAP of the same seed. Cross-validation chose the prior scales "
        f"{', '.join(f'{scale:g}' for scale in scales)} for the networks of the second table.\n"
    )
    return "\n".join([*parts, note])


def _cell(
    runs: Sequence[Run],
    setting: str,
    method: str,
    name: str,
    places: int,
    *,
    times: float = 1.0,
    minus: str | None = None,
) -> str:
    value, error = average([times * number for number in column(runs, setting, method, name, minus=minus)])
    return f"{value:{'+' if minus else ''}.{places}f} ± {error:.{places}f}"
