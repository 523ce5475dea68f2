"""Several seeds: each run once, then means over them with standard errors, and
paired differences to MAP.
"""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from tqdm import tqdm

from examples.studies.common import kept, scoring
from examples.studies.common.options import Options, parse

Run = dict[str, dict[str, dict[str, float]]]
"""One seed: {setting: {method: {column: number}}}."""

SETTINGS = {
    "wide prior": "Networks as one gets them: trained under N(0, 1)",
    "validated prior": "Networks whose own prior scale was cross-validated",
}
PLAIN = ("accuracy", "nll", "brier", "ece", "ece_noise_floor")
PAIRED = ("accuracy", "nll", "brier", "ece")
KINDS = ("letters", "rotated_digits", "other_digits")


def each_seed(one_seed: Callable[[Options], Any], name: str, description: str) -> tuple[list[Any], Path]:
    """What every seed of the command line gave, and the folder for tables; a seed that has run is
    not run again.

    Args:
        one_seed: a run.
        name: of the study, a folder of `examples/studies`. What a seed gave is kept as JSON under
            `--runs`, `quickstart-output/{name}` by default.
        description: what `--help` says of it.
    """
    smoke = bool(os.environ.get("SMOKE"))
    parser = argparse.ArgumentParser(prog=f"python -m examples.studies.{name}", description=description)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0] if smoke else [0, 1, 2, 3, 4], help="one run each")
    parser.add_argument("--out", type=Path, default=Path("quickstart-output"), help="folder of the tables")
    runs = Path("quickstart-output") / name
    parser.add_argument("--runs", type=Path, default=runs, help="folder of what each seed gave")
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found = []
    for seed in tqdm(given.seeds, desc="study", unit="seed"):
        file = given.runs / f"seed_{seed}.json"
        if (run := kept.read(file)) is None:
            kept.write(file, one_seed(parse(["--out", str(given.out), "--seed", str(seed)])))
            run = kept.read(file)
        found.append(run)
    return found, given.out


def pictures(out: Path) -> Path:
    """The documentation's folder of pictures where the tables go beside it, else `out` itself."""
    static = out.parent / "_static"
    return static if static.is_dir() else out


def average(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over seeds (nan for a single seed)."""
    return mean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def cell(numbers: Sequence[float], places: int, *, sign: bool = False) -> str:
    """Mean ± standard error over seeds, as a table shows them."""
    value, error = average(numbers)
    return f"{value:{'+' if sign else ''}.{places}f} ± {error:.{places}f}"


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
    numbers = [times * number for number in column(runs, setting, method, name, minus=minus)]
    return cell(numbers, places, sign=minus is not None)
