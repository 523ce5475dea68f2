"""What variational inference costs: with drawn weights and without, beside Pyro and other
libraries, as ratios.

A step is one of Adam on 128 images, as in `core.py`; a prediction is of 1,000 inputs in chunks of
50, by one pass of moments or by 32 draws of the weights, over one plain forward pass. CPU time on
one thread in float32, medians of interleaved rounds. Bounds are those that the project set itself.
bayesian-torch is timed in the same rounds where it is installed
(`pip install --no-deps bayesian-torch==0.5.0`); figures of libraries that are not are quoted, and
say so.
"""

import copy
from typing import Any

import pyro
import torch

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import (
    FlipoutELBO,
    LocalReparameterisationELBO,
    MeanField,
    MeanFieldELBO,
    MomentPropagationELBO,
    MultiplicativeNoise,
    SharedVariance,
    VariationalLaplaceELBO,
)
from bayesnn.guides.fisher import MonteCarloFisher
from bayesnn.guides.multiplicative_noise import PerWeight

from examples.benchmarks.core import NETS, CrossEntropy, Row, autonormal, stepper
from examples.benchmarks.timing import interleaved, markdown, options, row, write
from examples.benchmarks.variational_moments import LARGE, predictions
from examples.benchmarks.variational_peers import bayesian_torch, quoted

LOSSES: dict[str, tuple[Any, Any]] = {
    "MeanField, MeanFieldELBO": (MeanFieldELBO(), MeanField),
    "MeanField, LocalReparameterisationELBO": (LocalReparameterisationELBO(), MeanField),
    "MeanField, FlipoutELBO": (FlipoutELBO(), MeanField),
    "MeanField, VariationalLaplaceELBO": (VariationalLaplaceELBO(), MeanField),
    "MeanField, sampled labels": (VariationalLaplaceELBO(MonteCarloFisher()), MeanField),
    "MeanField, curvature_grad=False": (VariationalLaplaceELBO(curvature_grad=False), MeanField),
    "SharedVariance, VariationalLaplaceELBO": (VariationalLaplaceELBO(), SharedVariance),
    "MultiplicativeNoise, MomentPropagationELBO": (MomentPropagationELBO(), MultiplicativeNoise),
    "variance per weight, MomentPropagationELBO": (
        MomentPropagationELBO(),
        lambda model: MultiplicativeNoise(model, family=PerWeight()),
    ),
}
SIZE = 1_000
BOUND = {
    "MLP": {
        "MeanField, MeanFieldELBO": 2.8,
        "MeanField, LocalReparameterisationELBO": 3.0,
        "MeanField, FlipoutELBO": 3.5,
        "MeanField, VariationalLaplaceELBO": 4.2,
        "MultiplicativeNoise, MomentPropagationELBO": 3.2,
    },
    "LeNet": {
        "MeanField, MeanFieldELBO": 1.45,
        "MeanField, LocalReparameterisationELBO": 2.3,
        "MeanField, FlipoutELBO": 2.4,
        "MeanField, VariationalLaplaceELBO": 3.5,
        "MultiplicativeNoise, MomentPropagationELBO": 3.7,
    },
}


def steps(name: str, repeats: int) -> list[Row]:
    """One step of each loss."""
    make, shape = NETS[name]
    x, y = torch.rand(128, *shape), torch.randint(0, 10, (128,))
    net = make().eval()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=SIZE)
    plain = CrossEntropy(copy.deepcopy(net))
    actions = {"plain": stepper(plain, list(plain.parameters()), (x, y))}
    for label, (elbo, guide) in LOSSES.items():
        loss = elbo(model, guide(model))
        actions[label] = stepper(loss, list(loss.parameters()), (x, y))
    actions |= autonormal(model, (x, y))
    actions |= bayesian_torch(net, (x, y), SIZE)
    times = interleaved(actions, repeats, f"steps, {name}")
    bounds = {label: f"{bound:g}" for label, bound in BOUND[name].items()}
    rows = [row(f"{name}: step, {label}", times, label, bounds.get(label, "")) for label in actions]
    return rows + quoted(name, actions)


def main() -> None:
    """Run all and write the table."""
    given = options(__doc__, "variational.md")
    pyro.set_rng_seed(0)
    rows = [row for name in NETS for row in steps(name, given.repeats)]
    inputs = 1_000 if given.repeats > 1 else 20
    for name in (*NETS, *LARGE):
        rows += predictions(name, max(1, given.repeats // (3 if name in NETS else 8)), inputs)
    write(given.out, markdown(("what", "CPU time", "ratio to plain", "bound"), rows))


if __name__ == "__main__":
    main()
