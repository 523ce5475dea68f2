"""Prediction, ArviZ and metrics take ensembles of rank one as any posterior."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro import distributions as dist
from rank_one_problems import MEMBERS, PROBLEMS
from torch import Tensor, nn

from bayesnn import likelihoods, predict, predictive, to_arviz
from bayesnn.guides import RankOneGuide
from bayesnn.metrics import disagreement
from bayesnn.models import RankOneEnsemble, batch_ensemble
from bayesnn.models.rank_one import Output, by_member, random_signs, tile

every_problem = pytest.mark.parametrize("kind", PROBLEMS)


@every_problem
@pytest.mark.parametrize("chunk", [2, 100])
def test_predictions_are_the_tiled_pass(kind: str, chunk: int) -> None:
    model, guide, x, _ = PROBLEMS[kind]("net")
    draws = guide.draws()
    outputs = predict(draws, x, model=model, chunk=chunk)
    member = torch.arange(MEMBERS)
    rows = model.net.rows(tile(x, MEMBERS), model.vectors(draws, member)).detach()
    torch.testing.assert_close(outputs, by_member(rows, MEMBERS))
    twice = predict(guide.draws(2), x, model=model)
    assert twice.shape == (2 * MEMBERS, 6, 2)


@every_problem
def test_predictive_averages_probabilities_of_members(kind: str) -> None:
    model, guide, x, y = PROBLEMS[kind]()
    draws = guide.draws(3)
    mixture = predictive(draws, x, model=model)
    outputs = predict(draws, x, model=model)
    each = model.likelihood(outputs).log_prob(y)
    torch.testing.assert_close(mixture.log_prob(y), each.logsumexp(0) - np.log(len(each)))
    assert predictive(guide, x, 7, model=model).log_prob(y).shape == (6,)


def test_batch_ensemble_averages_softmaxes() -> None:
    model, guide, x, _ = PROBLEMS["BatchEnsemble"]()
    expected = model.net(x).softmax(-1).mean(0).detach()
    torch.testing.assert_close(predictive(guide.draws(), x, model=model).probs, expected)


@every_problem
def test_members_are_chains(kind: str) -> None:
    model, guide, x, y = PROBLEMS[kind]("net")
    draws = guide.draws(4, group_by_chain=True)
    tree = to_arviz(draws, x, y, model=model, group_by_chain=True)
    # the layers' own vectors are no data
    assert set(tree["log_likelihood"].data_vars) == {"net.y"}
    assert dict(tree["log_likelihood"]["net.y"].sizes) == {"chain": MEMBERS, "draw": 4, "net.data": 6}
    members = tree["posterior"]["net.member"].values
    assert members.tolist() == [[j] * 4 for j in range(MEMBERS)]
    outputs = predict(guide.draws(4), x, model=model)  # other codes, the same members
    assert outputs.shape == (4 * MEMBERS, 6, 2)
    flat = {site: value.flatten(0, 1) for site, value in draws.items()}
    expected = model.likelihood(predict(flat, x, model=model)).log_prob(y).unflatten(0, (MEMBERS, 4))
    np.testing.assert_allclose(tree["log_likelihood"]["net.y"].values, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    for site, shape in model.sites.items():
        assert tree["posterior"][site].shape == (MEMBERS, 4, *shape)
    pieces = to_arviz(draws, x, y, model=model, group_by_chain=True, chunk=2)
    np.testing.assert_allclose(pieces["sample_stats"]["lp"], tree["sample_stats"]["lp"], rtol=1e-4)


def test_leave_one_out_sees_examples() -> None:
    import arviz

    model, guide, x, y = PROBLEMS["BatchEnsemble"]()
    tree = to_arviz(guide.draws(group_by_chain=True), x, y, model=model, group_by_chain=True)
    assert tree["log_likelihood"]["y"].sizes["data"] == 6
    tree = to_arviz(guide, x, y, model=model, draws=40)
    with warnings.catch_warnings():  # three values of each density have no tail
        warnings.simplefilter("ignore")
        assert arviz.loo(tree, reff=1.0).n_data_points == 6


def test_a_guide_goes_to_arviz_with_its_density() -> None:
    model, guide, x, y = PROBLEMS["rank-1, normal"]()
    tree = to_arviz(guide, x, y, model=model, draws=30)
    assert {"lp", "log_q"} <= set(tree["sample_stats"].data_vars)
    assert set(np.unique(tree["posterior"]["member"])) <= set(range(MEMBERS))


class Maps(nn.Module):
    """Two maps by name, as torchvision's segmentation networks."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.aux = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x).relu()
        return {"out": self.head(features), "aux": self.aux(features)}


def test_segmentation_has_one_label_a_pixel() -> None:
    net = batch_ensemble(Output(Maps(), "out"), MEMBERS)
    assert list(net.layers) == ["net.body", "net.head", "net.aux"]
    model = RankOneEnsemble(net, likelihoods.pixelwise_categorical, size=4)
    x, y = torch.randn(2, 1, 4, 5), torch.randint(0, 3, (2, 4, 5))
    guide = RankOneGuide(model)
    assert predictive(guide.draws(), x, model=model).log_prob(y).shape == (2,)
    member: Any = net.member(1)
    torch.testing.assert_close(member(x), net(x)[1])
    assert set(member.net(x)) == {"out", "aux"}


def test_disagreement() -> None:
    labels = torch.tensor([[0, 1, 2], [0, 1, 1], [0, 2, 0], [0, 2, 0]])  # draw, batch
    probs = torch.nn.functional.one_hot(labels, 3).double() * 0.4 + 0.2
    assert disagreement(probs).tolist() == pytest.approx([0.0, 4 / 6, 5 / 6])
    with pytest.raises(ValueError, match="the number of draws = 1 must be at least 2"):
        disagreement(probs[:1])
    with pytest.raises(ValueError, match="not probabilities"):
        disagreement(probs * 2)
    with pytest.raises(ValueError, match=r"axes \[draw, batch, class\]"):
        disagreement(probs[0])


@given(st.integers(2, 5), st.integers(2, 4), st.integers(0, 1000))
def test_disagreement_counts_pairs(draws: int, classes: int, seed: int) -> None:
    probs = torch.rand(draws, 6, classes, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    labels = probs.argmax(-1)
    pairs = [(s, t) for s in range(draws) for t in range(s)]
    slow = torch.stack([(labels[s] != labels[t]).double() for s, t in pairs]).mean(0)
    torch.testing.assert_close(disagreement(probs), slow)


def test_a_trained_ensemble_becomes_a_rank_one_posterior() -> None:
    """The locations of the guide are the members' vectors: a small scale
    predicts as the ensemble does.
    """
    net = batch_ensemble(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), MEMBERS, initial=random_signs())
    model = RankOneEnsemble(net, likelihoods.categorical, prior=dist.Normal(1.0, 1.0))
    x = torch.randn(4, 3)
    outputs = predict(RankOneGuide(model, scale=1e-6).draws(), x, model=model)
    torch.testing.assert_close(outputs, net(x).detach(), rtol=1e-3, atol=1e-4)
