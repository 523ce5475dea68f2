"""RECaST beside its baselines in the published simulation: coverage, length and error with Monte-Carlo errors.

    python examples/transfer_simulation.py --seeds 30 --out docs/tables

Source and target are linear, the target's weights theta_S + N(0, noise^2 I); the source is least squares on 1,000
examples, or a logistic regression with --binary. Each seed's numbers are kept under --runs, so that a run that was
stopped goes on. Writes transfer_simulation.md; about 2 s of CPU a seed and design.
"""

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

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

SMOKE = bool(os.environ.get("SMOKE"))
NETWORK: dict[str, Method] = {
    "last layer": last_layer,
    "last-layer Laplace": last_layer_laplace,
    "fine-tuned": fine_tuned,
    "pooled ridge": pooled,
}
SIZES: tuple[int, ...] = (20,) if SMOKE else (20, 40, 60, 100, 250)
NOISES: tuple[float, ...] = (0.0,) if SMOKE else (0.0, 0.25, 1.0, 2.0)
CONTINUOUS = (("coverage", 0.5), ("coverage", 0.8), ("coverage", 0.95), ("length", 0.95), ("crps", 0.0), ("rmse", 0.0))
BINARY = (("auc", 0.0), ("nll", 0.0), ("ece", 0.0), ("coverage", 0.95), ("spiegelhalter_z", 0.0))


def main() -> None:
    """All designs, methods and seeds."""
    parser = argparse.ArgumentParser(description="The published simulation of RECaST.")
    parser.add_argument("--out", type=Path, default=Path("transfer-output"), help="folder of the table")
    parser.add_argument("--runs", type=Path, default=Path("transfer-runs"), help="folder of the seeds' numbers")
    parser.add_argument("--seeds", type=int, default=2 if SMOKE else 30, help="how many")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--binary", action="store_true", help="a binary response")
    parser.add_argument("--network", action="store_true", help="the source is a network")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of the target's training data")
    parser.add_argument("--noises", type=float, nargs="+", default=NOISES, help="distances of the target")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kind = "_binary" * given.binary + "_network" * given.network
    designs = {
        f"noise{noise:g}-n{n}": partial(linear_design, n_train=n, noise=noise, binary=given.binary, network=given.network)
        for noise in given.noises
        for n in given.sizes
    }
    methods = {**METHODS, **NETWORK}
    if given.binary:
        del methods["conformal"]
    study = transfer_study(designs, methods, range(given.seeds), folder=given.runs / f"runs{kind}", workers=given.workers)
    text = "\n\n".join([table(study, BINARY if given.binary else CONTINUOUS), notes(study, given.seeds)]) + "\n"
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"transfer_simulation{kind}.md").write_text(text, encoding="utf-8")
    print(text)


def table(study: Study, shown: Sequence[tuple[str, float]]) -> str:
    """One line for each design and method."""
    held = {row[:4]: row[4:6] for row in study.summary().rows}
    header = ["design", "method", *(f"{metric}{f' {level:.0%}' if level else ''}" for metric, level in shown)]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for design in dict.fromkeys(study.column("design")):
        for method in dict.fromkeys(study.column("method")):
            cells = [cell(*held[design, method, *one]) if (design, method, *one) in held else "–" for one in shown]
            lines.append("| " + " | ".join([design, method, *cells]) + " |")
    return "\n".join(lines)


def cell(mean: float, se: float) -> str:
    """Mean and Monte-Carlo standard error."""
    return f"{mean:.3g}" if se != se else f"{mean:.3f} ± {se:.3f}"  # no error: one seed, or an infinite value


def notes(study: Study, seeds: int) -> str:
    """What the numbers mean, k-hat, and whether the source harms."""
    khat = study.where(method="RECaST", metric="khat").column("value")
    beyond = sum(value >= 0.7 for value in khat)
    lines = [
        f"Means ± Monte-Carlo standard errors over {seeds} seeds, 250 test examples each; – where a metric does not "
        f"exist. Of {len(khat)} posteriors of RECaST {beyond} had k-hat of 0.7 or more.",
        "RECaST minus target only, on the same seeds; a negative difference favours RECaST:",
        str(study.negative_transfer()),
    ]
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
