"""The command line of the hierarchical regression."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """What a run does; SMOKE=1 in the environment makes everything small, to
    see only that it runs.
    """

    out: Path
    seed: int
    draws: int
    steps: int = 1500  # of variational inference
    training: int = 500  # steps of least squares
    depth: int = 5  # of NUTS's trees


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Options from the command line."""
    smoke = bool(os.environ.get("SMOKE"))
    parser = argparse.ArgumentParser(
        prog="python -m examples.hierarchical_regression",
        description="Two Bayesian networks and random intercepts in one Pyro model.",
    )
    parser.add_argument("--out", type=Path, default=Path("output"), help="folder for the figure and the netCDF files")
    parser.add_argument("--seed", type=int, default=3, help="of the data and of the fits")
    parser.add_argument("--draws", type=int, default=30 if smoke else 200, help="of each of two chains, 30 or more")
    given = parser.parse_args(arguments)
    if given.draws < 30:
        parser.error(f"--draws: 30 or more are needed for diagnostics, not {given.draws}")
    given.out.mkdir(parents=True, exist_ok=True)
    small: dict[str, Any] = {"steps": 10, "training": 20, "depth": 2} if smoke else {}
    return Options(**vars(given), **small)
