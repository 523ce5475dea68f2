"""SWAG: moments of snapshots, and a normal distribution of them."""

import pyro
import pytest
import torch
from conftest import Untouched
from nets import mlp
from statistical import assert_mean
from torch import Tensor

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import SWAG


def swag(rank: int = 4) -> SWAG:
    net = mlp()
    return SWAG(BNN(net, subset.named(net, "2"), priors.normal(1.0), likelihoods.categorical), rank)


def snapshots(guide: SWAG, count: int) -> Tensor:
    """Random ones, collected; [snapshot, param]."""
    flat = torch.randn(count, len(guide.loc))
    for row in flat:
        guide.collect({"2.weight": row[:8].reshape(2, 4), "2.bias": row[8:]})
    return flat


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_mean_and_covariance_are_those_of_the_snapshots(count: int) -> None:
    guide = swag()
    flat = snapshots(guide, count)
    torch.testing.assert_close(guide.loc, flat.mean(0))
    running = torch.stack([flat[: i + 1].mean(0) for i in range(count)])
    D = (flat - running)[-4:]
    covariance = 0.5 * torch.diag(flat.var(0, correction=0)) + 0.5 * D.T @ D / (len(D) - 1)
    torch.testing.assert_close(guide.variance, covariance.diagonal())
    with pyro.plate("draws", 20_000):
        values = guide()
    drawn = torch.cat([values[site].reshape(20_000, -1) for site in guide.model.sites], 1)
    assert_mean(drawn, guide.loc)
    centred = drawn - guide.loc
    assert_mean(centred.unsqueeze(2) * centred.unsqueeze(1), covariance)


def test_it_reads_the_network_and_never_writes(untouched: Untouched) -> None:
    guide = swag()
    net = guide.model.net
    with untouched(net):
        guide.collect()
    with torch.no_grad():
        net[2].weight += 1.0
    guide.collect()
    expected = net[2].weight.flatten() - 0.5
    torch.testing.assert_close(guide.loc[:8], expected.detach())
    torch.testing.assert_close(guide.loc[8:], net[2].bias.detach())
    assert guide()["2.bias"].isfinite().all()  # which never moved


def test_what_it_refuses() -> None:
    guide = swag()
    with pytest.raises(ValueError, match=r"0 snapshots make no distribution; call collect\(\)"):
        guide()
    snapshots(guide, 3)
    before = guide.loc.clone()
    with pytest.raises(ValueError, match=r"the weights are not finite.*Nothing was collected"):
        guide.collect({"2.weight": torch.full((2, 4), torch.nan), "2.bias": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'2.weight' has shape \(2, 4\), but .* has a value of shape \(4, 2\)"):
        guide.collect({"2.weight": torch.zeros(4, 2), "2.bias": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'2.bias' has shape \(2,\), but the snapshot has no value"):
        guide.collect({"2.weight": torch.zeros(2, 4)})
    assert torch.equal(guide.loc, before)
    assert int(guide.snapshots) == 3
    with pytest.raises(ValueError, match="at least two deviations"):
        swag(rank=1)
