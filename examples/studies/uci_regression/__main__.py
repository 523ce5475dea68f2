"""Approximations of the posterior on two small regression sets, by the protocol of the UCI
benchmarks.

    python -m examples.studies.uci_regression --out docs/tables

Boston housing and auto-mpg, one hidden layer of 50 ReLU, ten-fold cross-validation. Settings are
chosen within the training data of every fold. Writes uci_regression.md, .csv and .png. A fold that
has run is kept under `--runs` and not run again; a quarter of an hour on one core.
`--splits 0 1 ... 19` repeats it with other folds.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from examples.studies.common.study import pictures
from examples.studies.uci_regression import figure, tables
from examples.studies.uci_regression.methods import SMOKE
from examples.studies.uci_regression.recipe import Recipe
from examples.studies.uci_regression.study import FOLDS, SETS, Run, resumed


def main() -> None:
    """Run what has not run, then write the tables and the figure."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.uci_regression",
        description="Approximations of the posterior on small regression sets.",
    )
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="data sets")
    parser.add_argument("--splits", type=int, nargs="+", default=range(1 if SMOKE else FOLDS), help="folds of them")
    parser.add_argument("--out", type=Path, default=Path("output/uci_regression"), help="folder of tables and figure")
    parser.add_argument(
        "--runs", type=Path, default=Path("output/uci_regression/runs"), help="folder of what each split gave"
    )
    given = parser.parse_args()
    for folder in (given.out, given.runs):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    recipe = Recipe(steps=2, draws=5, members=2) if SMOKE else Recipe()
    todo = [(name, split) for name in given.sets for split in given.splits]
    runs: dict[str, list[Run]] = {name: [] for name in given.sets}
    for name, split in tqdm(todo, desc="splits", unit="split"):
        runs[name].append(resumed(given.runs, name, split, recipe))
    markdown = tables.to_markdown(runs)
    (given.out / "uci_regression.md").write_text(markdown, encoding="utf-8")
    (given.out / "uci_regression.csv").write_text(tables.to_csv(runs), encoding="utf-8")
    figure.draw(runs).savefig(pictures(given.out) / "uci_regression.png", dpi=130)
    print(markdown)


if __name__ == "__main__":
    main()
