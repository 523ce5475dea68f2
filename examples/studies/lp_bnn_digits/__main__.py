"""Latents instead of weights on digits: V-TST, BatchEnsemble, rank-1, LP-BNN beside what users
compare with.

    python -m examples.studies.lp_bnn_digits --seeds 0 1 2 3 4 --out docs/tables

A convolutional network of 314,506 weights on 800 images of MNIST, without weight decay: several
hundred weights for each image. The 200 other images choose the temperature, the dropout rate, the
rank-1 prior and one KL weight of LP-BNN. 4,000 images, letters, and digits under noise and turned
are looked at once, in the end.

Writes lp_bnn_digits.md and lp_bnn_digits.png: means over seeds with standard errors, what LP-BNN's
KL weight does, and how far members lie apart over the training. About three minutes of CPU time a
seed on one core; what a seed gave is kept under --runs, so a stopped run goes on.
"""

import os
from typing import Any

from torch.utils.data import TensorDataset
from tqdm import tqdm

from examples.studies.common import study
from examples.studies.common.datasets import load
from examples.studies.common.options import Options
from examples.studies.common.training import Task
from examples.studies.lp_bnn_digits import report
from examples.studies.lp_bnn_digits.judged import numbers, questions
from examples.studies.lp_bnn_digits.members import members
from examples.studies.lp_bnn_digits.points import points

EPOCHS, HELD = (2, 20) if os.environ.get("SMOKE") else (30, 200)


def one_seed(options: Options) -> dict[str, dict[str, Any]]:
    """{method: numbers}."""
    sets = load(options)
    x, y = sets.train.tensors
    task = Task(TensorDataset(x[HELD:], y[HELD:]), 100 * options.seed, EPOCHS)
    held = TensorDataset(x[:HELD], y[:HELD])
    methods = points(task, held) | members(task, held)
    asked = questions(sets, options.seed)
    return {name: numbers(one, asked) for name, one in tqdm(methods.items(), desc="judge", unit="method")}


def main() -> None:
    """Every seed that has not run yet, then tables and figure."""
    runs, out = study.each_seed(one_seed, "lp_bnn_digits", "Latents instead of weights on digits, by several seeds.")
    markdown = report.to_markdown(runs)
    (out / "lp_bnn_digits.md").write_text(markdown, encoding="utf-8")
    report.figure(runs).savefig(study.pictures(out) / "lp_bnn_digits.png", dpi=130)
    print(markdown)


if __name__ == "__main__":
    main()
