"""Ensembles and networks with noise: outputs in the form that `predict` gives."""

import pytest
import torch
from conftest import Untouched
from statistical import assert_mean
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.ops import StochasticDepth

from bayesnn import BNN, PredictiveDistribution, likelihoods, priors, subset
from bayesnn.predict import SkippedBlock, ensemble_outputs, noisy_outputs, stochastic_depth

X = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


def test_an_ensemble_is_its_members(untouched: Untouched) -> None:
    nets = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval() for _ in range(3)]
    with untouched(nets[0]):
        outputs = ensemble_outputs(nets, X, chunk=2)
    torch.testing.assert_close(outputs, torch.stack([net(X) for net in nets]))
    p = PredictiveDistribution(likelihoods.categorical(outputs))
    torch.testing.assert_close(p.probs, outputs.softmax(-1).mean(0))


def test_dropout_in_the_limit_of_many_draws(untouched: Untouched) -> None:
    """A linear head after dropout: E f = f, Var f = p / (1 - p) sum_j W_ij^2 h_j^2."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.25), nn.Linear(8, 2)).eval()
    with untouched(net):
        draws = noisy_outputs(net, X, 3000)
    assert_mean(draws, net(X))
    variance = (net[1](net[0](X)) ** 2) @ (net[3].weight ** 2).mT * (0.25 / 0.75)
    assert_mean((draws - net(X)) ** 2, variance)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))


def test_stochastic_depth_skips_blocks() -> None:
    """With two blocks of skip probabilities p/2 and p the mean over skips is a
    sum of four networks.
    """
    net = nn.Sequential(Block(), Block(), nn.Linear(3, 2)).eval()
    skipped = stochastic_depth(net, 0.4, blocks=(Block,))
    torch.testing.assert_close(skipped(X), net(X))  # never in evaluation mode
    a, b, head = net
    expected = 0.2 * 0.4 * head(X) + 0.8 * 0.4 * head(a(X)) + 0.2 * 0.6 * head(b(X)) + 0.8 * 0.6 * head(b(a(X)))
    assert_mean(noisy_outputs(skipped, X, 3000), expected)
    with pytest.raises(ValueError, match=r"BNN: '0' \(SkippedBlock\) is in training mode"):
        BNN(skipped.train(), subset.everything(skipped), priors.normal(), likelihoods.categorical)


def test_stochastic_depth_of_torchvisions() -> None:
    net = stochastic_depth(resnet18(weights=None), 0.5).eval()
    rates = [layer.p for layer in net.modules() if isinstance(layer, SkippedBlock)]
    # three blocks of eight change the shape
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert noisy_outputs(net, torch.randn(2, 3, 32, 32), 2).shape == (2, 2, 1000)
    own = nn.Sequential(nn.Linear(3, 2), StochasticDepth(0.5, "row")).eval()
    assert noisy_outputs(own, X, 50).std(0).min() > 0


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least one network"):
        ensemble_outputs([], X)
    with pytest.raises(ValueError, match=r"different shapes, \[\(2,\), \(4,\)\]"):
        ensemble_outputs([nn.Linear(3, 2), nn.Linear(3, 4)], X)
    with pytest.raises(ValueError, match="training mode"):
        ensemble_outputs([nn.Sequential(nn.Linear(3, 2), nn.Dropout())], X)
    with pytest.raises(ValueError, match="Linear has no dropout layer"):
        noisy_outputs(nn.Linear(3, 2), X)
    with pytest.raises(ValueError, match="at least one draw"):
        noisy_outputs(nn.Linear(3, 2), X, 0)
    with pytest.raises(ValueError, match="Linear has no BasicBlock or Bottleneck"):
        stochastic_depth(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="probability above 0 and below 1"):
        stochastic_depth(nn.Linear(3, 2), 1.0)
