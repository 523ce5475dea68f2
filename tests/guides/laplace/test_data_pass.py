"""One pass over the data: the log likelihood counts every example once,
whatever a structure asks, and how often.
"""

from functools import partial
from typing import Any

import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from torch import Tensor

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.functional import Inputs
from bayesnn.guides import Diagonal, Full, Hessian, Laplace
from bayesnn.guides.fisher import EmpiricalFisher, MonteCarloFisher
from bayesnn.guides.laplace.data_pass import BatchTargets
from bayesnn.guides.laplace.structure import OnePass, Posterior, Structure

X = torch.randn(7, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
Y = torch.randn(7, 2, dtype=torch.double, generator=torch.Generator().manual_seed(1))
BATCHES = [(X[:4], Y[:4]), (X[4:], Y[4:])]


def regression(likelihood: Any = None) -> BNN:
    net = mlp(outputs=2).double()
    return BNN(net, subset.everything(net), priors.normal(0.7), likelihood or likelihoods.normal(0.5))


class Twice(Diagonal):
    """Asks for everything twice, the second time one example at a time."""

    def add(self, x: Inputs, targets: BatchTargets) -> None:
        super().add(x, targets)
        outputs = self.rows.net(x)
        for i in range(len(outputs)):
            targets.roots(outputs[i : i + 1], slice(i, i + 1))
        targets.fisher(outputs)
        targets.log_prob(outputs)


@pytest.mark.parametrize("fisher", [MonteCarloFisher(2), EmpiricalFisher(), None], ids=["drawn", "empirical", "exact"])
def test_roots_may_be_asked_for_several_times(fisher: Any) -> None:
    model, options = regression(), {} if fisher is None else {"fisher": fisher}
    guide = Laplace(model, structure=Twice, **options).fit(BATCHES)
    expected = model.likelihood(model.net(X)).log_prob(Y).sum()
    torch.testing.assert_close(guide.fitted.log_likelihood, expected)
    if fisher is None:
        once = Laplace(model, structure=Diagonal).fit(BATCHES)
        assert guide.log_evidence() == once.log_evidence()
        assert torch.equal(guide.covariance, once.covariance)


class Lazy(Diagonal):
    """Leaves examples out."""

    def __init__(self, *args: Any, asks: int) -> None:
        super().__init__(*args)
        self.asks = asks

    def add(self, x: Inputs, targets: BatchTargets) -> None:
        if self.asks:
            targets.roots(self.rows.net(x)[: self.asks], slice(0, self.asks))


@pytest.mark.parametrize("asks", [0, 3])
def test_a_structure_that_leaves_examples_out_is_refused(asks: int) -> None:
    guide = Laplace(regression(), structure=partial(Lazy, asks=asks))
    with pytest.raises(TypeError, match=f"Lazy: `add` handed over the outputs of {asks} of 4 examples") as caught:
        guide.fit(BATCHES)
    assert caught.value.__notes__ == ["Laplace.fit: in batch 0 of the loader, counted from 0"]
    with pytest.raises(ValueError, match=r"call fit\(loader\) first"):
        guide.fitted


@pytest.mark.parametrize("kind", [Structure, OnePass, Posterior])
def test_the_protocol_is_in_code(kind: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind(*(None,) * 2) if kind is not Posterior else kind()


def laplace_noise(outputs: Tensor) -> dist.TorchDistribution:
    """A likelihood without a Fisher information."""
    return dist.Laplace(outputs, 1.0).to_event(1)


class Own(Hessian):
    """A structure of a user."""


HESSIANS = {"class": Hessian, "partial": partial(Hessian), "subclass": Own, "both": partial(partial(Own))}


@pytest.mark.parametrize("kind", HESSIANS)
def test_the_structure_says_whether_it_needs_a_fisher_information(kind: str) -> None:
    model = regression(laplace_noise)
    model = model.with_prior(priors.normal(0.05))
    guide = Laplace(model, structure=HESSIANS[kind]).fit(BATCHES)
    assert guide.log_evidence() == Laplace(model, structure=Hessian).fit(BATCHES).log_evidence()


@pytest.mark.parametrize("structure", [Full, partial(Full), Twice, partial(Lazy, asks=4)])
def test_others_are_refused_at_once(structure: Any) -> None:
    with pytest.raises(ValueError, match="has no Fisher information of its outputs"):
        Laplace(regression(laplace_noise), structure=structure)


def test_a_function_that_makes_structures_is_asked_at_the_fit() -> None:
    model = regression(laplace_noise).with_prior(priors.normal(0.05))
    assert Laplace(model, structure=lambda *args: Hessian(*args)).fit(BATCHES).log_evidence().isfinite()
    guide = Laplace(model, structure=lambda *args: Full(*args))
    with pytest.raises(ValueError, match="has no Fisher information of its outputs"):
        guide.fit(iter(()))  # before the data are touched


class NoBatch(likelihoods.real.Normal):
    """All targets are one event."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Normal(outputs, 1.0).to_event(2)


def test_a_likelihood_without_a_batch_axis_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has the batch shape \(\) for 4 examples"):
        Laplace(regression(NoBatch(1.0))).fit(BATCHES)
