"""The outputs of `MultiplicativeNoise` with variances of the linearised network."""

from typing import Any

import pytest
import torch
from conftest import Untouched
from statistical import assert_mean
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import MultiplicativeNoise
from bayesnn.guides.multiplicative_noise import PerInput, PerWeight
from bayesnn.predict import predict


class Residual(nn.Module):
    """Units that share what they add, at positions that share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv1d(1, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head((x + F.relu(self.block(x))).mean(-1))


def guide_of(net: nn.Module, *names: str, family: Any = None) -> MultiplicativeNoise:
    chosen = subset.named(net, *names) if names else subset.everything(net)
    return MultiplicativeNoise(BNN(net, chosen, priors.normal(0.5), likelihoods.normal(0.3)), family)


@pytest.mark.parametrize("family", [PerInput(), PerWeight()], ids=["input", "weight"])
def test_one_layer_needs_no_approximation(family: Any) -> None:
    guide, x = guide_of(nn.Linear(3, 2).double(), family=family), torch.randn(5, 3, dtype=torch.double)
    found, expected = guide.linearised_distribution(x, chunk=2), guide.output_distribution(x)
    assert (found.batch_shape, found.event_shape) == ((5,), (2,))
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.variance, expected.variance)


def test_variances_are_those_of_draws_where_propagated_ones_are_not(untouched: Untouched) -> None:
    """With so little noise the network is linear: one z-test for each of twelve variances."""
    net, x = Residual().double().eval(), torch.randn(6, 1, 8, dtype=torch.double)
    guide = guide_of(net, family=PerInput(noise=1e-8, variance=1e-10))
    with untouched(net):
        found = guide.linearised_distribution(x)
    with torch.no_grad():
        squares = (predict(guide, x, 3000) - net(x)).square()
    assert_mean(squares / found.variance, 1.0)
    with pytest.raises(AssertionError, match="was expected"):
        assert_mean(squares / guide.output_distribution(x).variance, 1.0)


def test_weights_that_are_not_random_are_certain() -> None:
    """The last layer alone, and then a part of it."""
    net, x = Residual().eval(), torch.randn(6, 1, 8)
    guide = guide_of(net, "head.weight")
    torch.testing.assert_close(guide.linearised_distribution(x).variance, guide.output_distribution(x).variance)
    some = subset.named(net, "head.weight") & subset.random(net, 40, generator=torch.Generator().manual_seed(0))
    guide = MultiplicativeNoise(BNN(net, some, priors.normal(0.5), likelihoods.normal(0.3)))
    assert 0 < guide.loc.numel() < 8
    torch.testing.assert_close(guide.linearised_distribution(x).variance, guide.output_distribution(x).variance)


def test_refusals() -> None:
    guide, x = guide_of(Residual().eval()), torch.randn(6, 1, 8)
    with pytest.raises(ValueError, match="x is not finite"):
        guide.linearised_distribution(x * torch.nan)
    normalised = guide_of(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).eval(), "0.weight")
    normalised.model.net.train()
    with pytest.raises(ValueError, match="is in training mode"):
        normalised.linearised_distribution(torch.randn(6, 3))
    with pytest.raises(TypeError, match=r"derivatives in torch.float16 have too few digits; make the model of net"):
        guide_of(Residual().half().eval()).linearised_distribution(x.half())
