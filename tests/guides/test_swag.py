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
from bayesnn.guides import swag as swag_file


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


def test_snapshots_that_lie_close_together() -> None:
    """Moments of differences: E[w^2] - m^2 in single precision would be rounding alone."""
    guide = swag()
    flat = 100 + 1e-2 * torch.randn(300, len(guide.loc))
    for row in flat:
        guide.collect({"2.weight": row[:8].reshape(2, 4), "2.bias": row[8:]})
    D = guide.deviations.double()
    expected = 0.5 * flat.double().var(0, correction=0) + 0.5 * D.square().sum(0) / (len(D) - 1)
    torch.testing.assert_close(guide.variance.double(), expected, rtol=1e-3, atol=0)


def test_a_straight_way_of_many_weights() -> None:
    """Deviations in one direction: torch's capacitance matrix has no Cholesky
    factor in single precision.
    """
    net = torch.nn.Linear(100_000, 1, bias=False)
    guide = SWAG(BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0)), rank=20)
    way = torch.randn(1, 100_000)
    for step in range(40):
        guide.collect({"weight": 1e-3 * step * way})
    guide.scatter.mul_(1e-3)  # as if the way had been short until now
    joint = guide._joint()
    with pytest.raises(torch.linalg.LinAlgError):
        torch.distributions.LowRankMultivariateNormal(joint.loc, joint.scale * joint.deviations.mT, joint.diagonal)
    trace = pyro.poutine.trace(guide).get_trace()
    assert trace.nodes["_swag"]["value"].isfinite().all()
    assert torch.as_tensor(trace.log_prob_sum()).isfinite()


@pytest.mark.parametrize("columns", [2**18, 3])
def test_the_density_is_that_of_the_dense_matrix(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swag_file, "_COLUMNS", columns)
    loc, D, diagonal = torch.randn(7).double(), torch.randn(3, 7).double(), torch.rand(7).double() + 0.1
    ours = swag_file.SnapshotNormal(loc, D, 0.4, diagonal)
    dense = torch.distributions.MultivariateNormal(loc, torch.diag(diagonal) + 0.16 * D.T @ D)
    value = torch.randn(5, 2, 7).double()
    torch.testing.assert_close(ours.log_prob(value), dense.log_prob(value))
    torch.testing.assert_close(ours.expand((5, 2)).log_prob(value[0, 0]), dense.log_prob(value[0, 0]).expand(5, 2))
    assert ours.expand((2,)).sample((4,)).shape == (4, 2, 7)
