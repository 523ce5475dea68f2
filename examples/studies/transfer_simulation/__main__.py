"""RECaST beside its baselines in the published simulation: coverage, length and error with
Monte-Carlo errors.

    python -m examples.studies.transfer_simulation --out docs/tables --workers 2

Source and target are linear, the target's weights theta_S + N(0, noise^2 I); the source is least
squares on 1,000 examples, a logistic regression with --binary, or a network with --network. Each
seed's numbers are kept under --runs, so that a run that was stopped goes on. Writes a table and a
figure; about 1 s of CPU a seed and design.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bayesnn.transfer import (
    METHODS,
    Method,
    Study,
    fine_tuned,
    last_layer,
    last_layer_laplace,
    linear_design,
    pooled,
    transfer_study,
)
from bayesnn.transfer.table import KEYS

from examples.studies.common.curves import curves
from examples.studies.common.matrix import matrix
from examples.studies.common.study import pictures

SMOKE = bool(os.environ.get("SMOKE"))
NETWORK: dict[str, Method] = {
    "last layer": last_layer,
    "last-layer Laplace": last_layer_laplace,
    "fine-tuned": fine_tuned,
    "pooled ridge": pooled,
}
SIZES: tuple[int, ...] = (20,) if SMOKE else (20, 40, 60, 100, 250)
ENOUGH = 60
"""Target examples from which on the intervals' coverage is asked for."""
NOISES: tuple[float, ...] = (0.0,) if SMOKE else (0.0, 0.25, 1.0, 2.0)
CONTINUOUS = {
    ("coverage", 0.5): "Coverage of 50 % intervals",
    ("coverage", 0.8): "Coverage of 80 % intervals",
    ("coverage", 0.95): "Coverage of 95 % intervals",
    ("length", 0.95): "Length of 95 % intervals, units of y",
    ("rmse", 0.0): "Root mean squared error of medians, units of y",
}
BINARY = {
    ("auc", 0.0): "AUC",
    ("nll", 0.0): "Log loss, nats",
    ("ece", 0.0): "Expected calibration error",
    ("coverage", 0.95): "Share of true labels among examples predicted with probability .95 ± .025",
    ("spiegelhalter_z", 0.0): "Spiegelhalter's z",
}


def main() -> None:
    """All designs, methods and seeds."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.transfer_simulation", description="The published simulation of RECaST."
    )
    parser.add_argument("--out", type=Path, default=Path("transfer-output"), help="folder of the table")
    parser.add_argument("--runs", type=Path, default=Path("transfer-runs"), help="folder of the seeds' numbers")
    parser.add_argument("--seeds", type=int, default=2 if SMOKE else 300, help="with 60 target examples or more")
    parser.add_argument("--few-seeds", type=int, default=2 if SMOKE else 100, help="with fewer")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--binary", action="store_true", help="a binary response")
    parser.add_argument("--network", action="store_true", help="the source is a network")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of the target's training data")
    parser.add_argument("--noises", type=float, nargs="+", default=NOISES, help="distances of the target")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kind = "_binary" * given.binary + "_network" * given.network
    make = partial(linear_design, binary=given.binary, network=given.network)
    panels = {f"noise {noise:g}": {n: f"noise{noise:g}-n{n}" for n in given.sizes} for noise in given.noises}
    methods = {**METHODS, **NETWORK}
    if given.binary:
        del methods["conformal"]
    rows: list[tuple[Any, ...]] = []
    for seeds, of in ((given.seeds, lambda n: n >= ENOUGH), (given.few_seeds, lambda n: n < ENOUGH)):
        cells = [(noise, n) for noise in given.noises for n in given.sizes if of(n)]
        if cells:
            designs = {f"noise{noise:g}-n{n}": partial(make, n_train=n, noise=noise) for noise, n in cells}
            folder = given.runs / f"runs{kind}"
            rows += transfer_study(designs, methods, range(seeds), folder=folder, workers=given.workers).rows
    study = Study(KEYS, tuple(rows))
    shown = BINARY if given.binary else CONTINUOUS
    text = report(study, shown, [design for panel in panels.values() for design in panel.values()])
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"transfer_simulation{kind}.md").write_text(text, encoding="utf-8")
    drawn = [("coverage", 0.95, "share of true labels" if given.binary else "coverage of 95 %")]
    drawn.append(("nll", 0.0, "log loss (nats)") if given.binary else ("rmse", 0.0, "error of medians"))
    picture = pictures(given.out) / f"transfer_simulation{kind}.png"
    curves(study, panels, drawn, methods=list(methods)).savefig(picture, dpi=110)
    print(text)


def report(study: Study, shown: Mapping[tuple[str, float], str], designs: Sequence[str]) -> str:
    """A table for each metric, and notes."""
    methods = list(dict.fromkeys(study.column("method")))
    parts = []
    for (metric, level), title in shown.items():
        columns = [name for name in methods if study.where(method=name, metric=metric, level=level)]
        parts.append(f"**{title}**\n\n{matrix(study, metric, level, designs=designs, methods=columns)}")
    return "\n\n".join([*parts, notes(study)]) + "\n"


def notes(study: Study) -> str:
    """What the numbers mean, k-hat, and whether the source harms."""
    khat = study.where(method="RECaST", metric="khat").column("value")
    beyond = sum(value >= 0.7 for value in khat)
    lines = [
        "Means ± Monte-Carlo standard errors over the seeds that the last table counts, 250 test examples each; – "
        f"where a metric does not exist. Of {len(khat)} posteriors of RECaST {beyond} had k-hat of 0.7 or more.",
        "**RECaST minus target only on the same seeds; a negative difference favours RECaST**",
        str(study.negative_transfer()),
    ]
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
