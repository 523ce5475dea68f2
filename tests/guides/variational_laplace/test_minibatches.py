"""Variational Laplace over minibatches: every batch and every probe enumerated,
value and gradient.
"""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from variational_laplace_problems import Handwritten, NoCurvature, real

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import MeanField, VariationalLaplaceELBO
from bayesnn.guides.fisher import EmpiricalFisher, ExactFisher, FisherProbes, MonteCarloFisher, signs

SIZES = (1, 2, 3)


def network() -> tuple[BNN, MeanField, Tensor, Tensor]:
    """Three examples, two classes, and a network that is linear in none of its weights."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    for value in net.parameters():
        nn.init.normal_(value)
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=3)
    return model, MeanField(model, scale=0.4), torch.randn(3, 2, dtype=torch.double), torch.tensor([1, 0, 1])


def averaged(losses: Iterator[tuple[float, Tensor]], parameters: list[Tensor]) -> list[Tensor]:
    """Value and gradients of a mean with weights that add to 1."""
    weights, values = zip(*losses, strict=True)
    assert sum(weights) == pytest.approx(1)
    mean = torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum()
    return [mean.detach(), *torch.autograd.grad(mean, parameters)]


def assert_whole(found: list[Tensor], whole: Tensor, parameters: list[Tensor]) -> None:
    expected = [whole.detach(), *torch.autograd.grad(whole, parameters)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("curvature", [FisherProbes(), EmpiricalFisher()], ids=["probes", "signs of labels"])
def test_all_batches_and_all_signs_are_the_whole(curvature: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network's value and gradient are unbiased at every batch size: the
    exact ones of all data, in the mean.
    """
    model, guide, x, y = network()
    exact = ExactFisher() if isinstance(curvature, FisherProbes) else EmpiricalFisher(each=True)
    whole = VariationalLaplaceELBO(exact, kl_weight=0.7)(model, guide)(x, y)
    loss = VariationalLaplaceELBO(curvature, kl_weight=0.7)(model, guide)
    count = size * (2 if isinstance(curvature, FisherProbes) else 1)
    batches = list(combinations(range(3), size))

    def losses() -> Iterator[tuple[float, Tensor]]:
        for chosen in map(list, batches):
            for vector in product([-1.0, 1.0], repeat=count):
                monkeypatch.setattr(signs, "random_signs", lambda like, v=vector: real(*v).reshape(like.shape))
                yield 1 / len(batches) / 2**count, loss(x[chosen], y[chosen])

    parameters = [guide.loc, guide.log_scale]
    assert_whole(averaged(losses(), parameters), whole, parameters)


FEATURES = torch.tensor([[1, 0.2], [1, -0.7], [1, 1.5]], dtype=torch.double)


def logistic(chosen: Tensor | None = None) -> None:
    """The linear model of which F is known, seen in parts."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
    with pyro.plate("data", 3, subsample=chosen) as i:
        pyro.sample("y", dist.Bernoulli(logits=FEATURES[i] @ w), obs=real(1, 0, 1)[i])


def guided() -> Handwritten:
    guide = Handwritten()
    with torch.no_grad():
        guide.loc.copy_(real(0.4, -0.8))
        guide.scale_tril.copy_(real(0.3, 0.3).sqrt().diag())
    return guide


@pytest.mark.parametrize("size", SIZES)
def test_sampled_labels_have_a_value_without_the_batch_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All batches and all their labels: the F of all data, 0.6605606367 and
    0.5892603518, at every size.
    """
    guide = guided()
    none = VariationalLaplaceELBO(NoCurvature())(logistic, guide)
    loss = VariationalLaplaceELBO(MonteCarloFisher())(logistic, guide)
    penalties = []
    batches = list(combinations(range(3), size))
    for chosen in map(torch.tensor, batches):
        p = (FEATURES[chosen] @ guide.loc).sigmoid().detach()
        for labels in product([0.0, 1.0], repeat=size):
            y = real(*labels)
            monkeypatch.setattr(dist.Bernoulli, "sample", lambda self, y=y: y)
            probability = (p**y * (1 - p) ** (1 - y)).prod() / len(batches)
            penalties.append(probability * (loss(chosen) - none(chosen)).detach())
    expected = 0.5 * 0.3 * (0.6605606367 + 0.5892603518)
    assert torch.stack(penalties).sum().item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_a_plates_own_subsamples(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Pyro's plates, where the scale of the site is 3 / size."""
    guide = guided()
    whole = VariationalLaplaceELBO(ExactFisher())(logistic, guide)()
    loss = VariationalLaplaceELBO()(logistic, guide)
    batches = list(combinations(range(3), size))

    def losses() -> Iterator[tuple[float, Tensor]]:
        for chosen in map(torch.tensor, batches):
            for vector in product([-1.0, 1.0], repeat=size):
                monkeypatch.setattr(signs, "random_signs", lambda like, v=vector: real(*v).reshape(like.shape))
                yield 1 / len(batches) / 2**size, loss(chosen)

    parameters: list[Tensor] = [guide.loc, guide.scale_tril]
    assert_whole(averaged(losses(), parameters), whole, parameters)
