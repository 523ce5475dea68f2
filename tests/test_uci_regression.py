"""The study of small regression sets: folds, standardisation, and scores in the
targets' own unit.
"""

import math

import pytest
import torch
from pyro import distributions as dist

from bayesnn.predict import PredictiveDistribution

from examples.studies.uci_regression import points
from examples.studies.uci_regression.points import LogJoint
from examples.studies.uci_regression.problem import Data, folds, problem
from examples.studies.uci_regression.recipe import Recipe
from examples.studies.uci_regression.study import scores


def test_every_example_is_tested_once_and_never_learned_from() -> None:
    found = folds(37, count=10, seed=1)
    assert sorted(torch.cat([test for _, test in found]).tolist()) == list(range(37))
    for train, test in found:
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(37))
        assert len(test) in (3, 4)


def test_standardised_by_the_training_data_alone() -> None:
    x = torch.tensor([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0]])  # a column without variation
    train, test = Data(x, torch.tensor([[2.0], [4.0], [6.0]])), Data(torch.tensor([[5.0, 9.0]]), torch.tensor([[10.0]]))
    found = problem(train, test)
    torch.testing.assert_close(found.train.x, torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(found.test.x, torch.tensor([[1.0, 2.0]]))
    assert (found.centre, found.unit) == (4.0, 2.0)
    torch.testing.assert_close(found.test.y, torch.tensor([[3.0]]))
    raw = problem(train, test, targets=False)
    assert torch.equal(raw.test.y, test.y)
    assert raw.unit == 1.0


def test_batches_hold_each_example_once() -> None:
    x = torch.arange(10.0)[:, None]
    assert [len(batch) for batch, _ in Data(x, x, batch=4)] == [4, 4, 2]
    assert len(Data(x, x, batch=4)) == 3
    assert torch.cat([batch for batch, _ in Data(x, x, batch=4)]).sort(0).values.equal(x)
    ((whole, _),) = Data(x, x)
    assert len(Data(x, x)) == 1
    assert whole is x


def test_scores_are_those_of_the_predictive_in_the_targets_own_unit() -> None:
    unit, mean, deviation = 9.2, torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.5, 0.1, 0.2])
    y = torch.tensor([0.1, -1.3, 2.1])
    ours = PredictiveDistribution(dist.Normal(mean[None, :, None], deviation[None, :, None]).to_event(1))
    torch.manual_seed(0)
    found = scores(ours, y[:, None], unit)
    own = torch.distributions.Normal(mean * unit, deviation * unit)
    assert found["log_likelihood"] == pytest.approx(float(own.log_prob(y * unit).mean()), rel=1e-6)
    assert found["rmse"] == pytest.approx(float(((mean - y) * unit).square().mean().sqrt()), rel=1e-6)
    assert found["width"] == pytest.approx(float(2 * 1.6448536 * deviation.mean() * unit), rel=1e-4)
    assert found["coverage"] == pytest.approx(2 / 3)
    # CRPS of N(m, s): s [z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)]; here from 1,000 draws.
    z, normal = (y - mean) / deviation, torch.distributions.Normal(0.0, 1.0)
    exact = deviation * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - 1 / math.sqrt(math.pi))
    # Each of its two terms has a standard error below that of the mean of 1,000 draws; a false
    # alarm in a million.
    bound = 4.9 * float(deviation.square().sum().sqrt()) / 3 * unit / math.sqrt(1000)
    assert abs(found["crps"] - float(exact.mean()) * unit) < 2 * bound


def test_an_ensemble_is_the_even_mixture_of_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    data, recipe = Data(torch.randn(20, 3), torch.randn(20, 1)), Recipe(steps=3)
    made = []
    original = points.trained
    monkeypatch.setattr(points, "trained", lambda *given: made.append(original(*given)) or made[-1])
    two = points.ensemble(data, recipe, scale=0.3, members=2)(data.x)
    means = torch.stack([one.net(data.x) for one in made])
    torch.testing.assert_close(two.mean, means.mean(0))
    noise = torch.stack([one.likelihood.scale() for one in made])
    expected = noise.square().mean() + means.var(0, correction=0)
    torch.testing.assert_close(two.variance, expected)
    assert noise[0] != noise[1]


def test_the_loss_of_points_is_the_joint_density() -> None:
    data, recipe = Data(torch.randn(20, 3), torch.randn(20, 1)), Recipe()
    net, likelihood = recipe.net(data), recipe.likelihood()
    loss = LogJoint(net, likelihood, 0.3, 20)
    weights = torch.cat([p.reshape(-1) for p in net.parameters()])
    prior = dist.Normal(0.0, 0.3).log_prob(weights).sum() - len(weights) * dist.Normal(0.0, 0.3).log_prob(
        torch.zeros(())
    )
    joint = dist.Normal(net(data.x), 0.5).log_prob(data.y).sum() + prior
    torch.testing.assert_close(loss(data.x, data.y), -joint)
    half = (loss(data.x[:10], data.y[:10]) + loss(data.x[10:], data.y[10:])) / 2
    torch.testing.assert_close(half, -joint)
