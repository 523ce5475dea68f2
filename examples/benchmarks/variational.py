"""What a step of variational inference costs: variational Laplace beside sampled mean-field inference, as ratios.

A step is one of Adam on 128 images, as in `core.py`. CPU time on one thread in float32, medians of interleaved rounds.
Bounds are those that the project set itself.
"""

import argparse
import copy
import os
import statistics
from pathlib import Path
from typing import Any

import pyro
import torch
from core import NETS, CrossEntropy, Row, stepper
from timing import interleaved, markdown, ratio, write

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import (
    FlipoutELBO,
    LocalReparameterisationELBO,
    MeanField,
    MeanFieldELBO,
    SampledLabels,
    SharedVariance,
    VariationalLaplaceELBO,
)

LOSSES: dict[str, tuple[Any, Any]] = {
    "MeanField, MeanFieldELBO": (MeanFieldELBO(), MeanField),
    "MeanField, LocalReparameterisationELBO": (LocalReparameterisationELBO(), MeanField),
    "MeanField, FlipoutELBO": (FlipoutELBO(), MeanField),
    "MeanField, VariationalLaplaceELBO": (VariationalLaplaceELBO(), MeanField),
    "MeanField, sampled labels": (VariationalLaplaceELBO(SampledLabels()), MeanField),
    "MeanField, curvature_grad=False": (VariationalLaplaceELBO(curvature_grad=False), MeanField),
    "SharedVariance, VariationalLaplaceELBO": (VariationalLaplaceELBO(), SharedVariance),
}
BOUND = {
    "MLP": {
        "MeanField, MeanFieldELBO": 2.8,
        "MeanField, LocalReparameterisationELBO": 3.0,
        "MeanField, FlipoutELBO": 3.5,
        "MeanField, VariationalLaplaceELBO": 4.2,
    },
    "LeNet": {
        "MeanField, MeanFieldELBO": 1.45,
        "MeanField, LocalReparameterisationELBO": 2.3,
        "MeanField, FlipoutELBO": 2.4,
        "MeanField, VariationalLaplaceELBO": 3.5,
    },
}


def steps(name: str, repeats: int) -> list[Row]:
    """One step of each loss."""
    make, shape = NETS[name]
    x, y = torch.rand(128, *shape), torch.randint(0, 10, (128,))
    net = make().eval()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=1_000)
    plain = CrossEntropy(copy.deepcopy(net))
    actions = {"plain": stepper(plain, list(plain.parameters()), (x, y))}
    for label, (elbo, guide) in LOSSES.items():
        loss = elbo(model, guide(model))
        actions[label] = stepper(loss, list(loss.parameters()), (x, y))
    times = interleaved(actions, repeats, f"steps, {name}")
    rows: list[Row] = []
    for label in actions:
        milliseconds = statistics.median(times[label]) * 1e3
        bound = BOUND[name].get(label)
        cells = (f"{milliseconds:.1f} ms", f"{ratio(times, label, 'plain'):.2f}", "" if bound is None else f"{bound:g}")
        rows.append((f"{name}: step, {label}", *cells))
    return rows


def main() -> None:
    """Run all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/tables/variational.md"), help="where the table goes")
    parser.add_argument("--repeats", type=int, default=25, help="interleaved rounds")
    options = parser.parse_args()
    if os.environ.get("SMOKE"):
        options.repeats = 1
    torch.set_num_threads(1)
    pyro.set_rng_seed(0)
    rows = [row for name in NETS for row in steps(name, options.repeats)]
    write(options.out, markdown(("what", "CPU time", "ratio to plain", "bound"), rows))


if __name__ == "__main__":
    main()
