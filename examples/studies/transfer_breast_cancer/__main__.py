"""RECaST beside its baselines on real cohorts: from Rotterdam's breast cancer patients to a German
trial.

    python -m examples.studies.transfer_breast_cancer --out docs/tables --workers 2

A network trained on 2,982 patients of the Rotterdam tumour bank is transferred to 20 to 250 of the
686 patients of the German Breast Cancer Study Group, and judged on the others: recurrence or death
within three years (binary), and the logarithm of the oestrogen receptors (a real number). Each
seed's numbers are kept under --runs, so that a run that was stopped goes on. Writes
transfer_breast_cancer*.md and transfer_breast_cancer.png; half an hour of CPU.
"""

import argparse
import os
from pathlib import Path

import torch

from examples.studies.common.study import pictures
from examples.studies.transfer_breast_cancer import figure, report
from examples.studies.transfer_breast_cancer.plan import QUESTIONS, SMOKE, Budget, answered


def main() -> None:
    """All questions, then tables and figure."""
    full = SMOKE if os.environ.get("SMOKE") else Budget()
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.transfer_breast_cancer",
        description="RECaST from Rotterdam to the German Breast Cancer Study Group.",
    )
    parser.add_argument("--out", type=Path, default=Path("transfer-output"), help="folder of tables and figure")
    parser.add_argument("--runs", type=Path, default=Path("transfer-runs"), help="folder of the seeds' numbers")
    parser.add_argument("--seeds", type=int, default=full.recast, help="of RECaST")
    parser.add_argument("--slow-seeds", type=int, default=full.slow, help="of its slow variants")
    parser.add_argument("--other-seeds", type=int, default=full.others, help="of all other methods")
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS), help="which")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    budget = Budget(given.seeds, given.slow_seeds, given.other_seeds, full.sizes)
    studies = {name: answered(name, budget, given.runs, workers=given.workers) for name in given.questions}
    given.out.mkdir(parents=True, exist_ok=True)
    for name, text in report.tables(studies).items():
        (given.out / name).write_text(text, encoding="utf-8")
        if name.endswith(".md"):
            print(text)
    for name, picture in figure.draw(studies).items():
        picture.savefig(pictures(given.out) / name, dpi=130)


if __name__ == "__main__":
    main()
