"""`draw`: one form of draws, {site: [draw, *event]}, whatever they come from."""

import re
from typing import Any

import pyro
import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from pyro.infer import Predictive
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from torch import Tensor

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import Laplace, MeanField
from bayesnn.predict import draw, draw_each

X, Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0, 1, 0])


def classification(name: str = "") -> BNN:
    net = mlp()
    chosen = subset.random(net, 5, within=subset.named(net, "0.weight")) | subset.last_layer(net)
    return BNN(net, chosen, priors.normal(0.7), likelihoods.categorical, name=name)


def started(kind: Any, model: BNN) -> Any:
    guide = kind(model)
    guide(X, Y)
    return guide


GUIDES = {
    "MeanField": MeanField,
    "Laplace": lambda model: Laplace(model).fit([(X, Y)]),
    "AutoNormal": lambda model: started(AutoNormal, model),
    "AutoDiagonalNormal": lambda model: started(AutoDiagonalNormal, model),
    "AutoDelta": lambda model: started(AutoDelta, model),
}


@pytest.mark.parametrize("kind", GUIDES)
@pytest.mark.parametrize("name", ["", "net"])
def test_a_guide_gives_its_sites_and_nothing_else(kind: str, name: str) -> None:
    model = classification(name)
    guide = GUIDES[kind](model)
    found = draw(guide, 4, *(() if kind in ("MeanField", "Laplace") else (X, Y)))
    assert {site: value.shape for site, value in found.items()} == {s: (4, *e) for s, e in model.sites.items()}
    assert not any(value.requires_grad for value in found.values())
    if kind != "AutoDelta":
        assert all((value[0] != value[1]).any() for value in found.values())


def test_draws_one_at_a_time_are_the_same_draws() -> None:
    guide = MeanField(classification())
    pyro.set_rng_seed(3)
    together = draw(guide, 5)
    pyro.set_rng_seed(3)
    for i, one in enumerate(draw_each(guide, 5)):
        assert all(torch.equal(value, together[site][i]) for site, value in one.items())
    assert i == 4


def test_a_guide_is_asked_only_when_a_draw_is_wanted() -> None:
    calls = []

    def guide() -> None:
        calls.append(pyro.sample("w", dist.Normal(0.0, 1.0)))

    each = draw_each(guide, 1_000_000)
    next(each)
    next(each)
    assert len(calls) == 2


def test_plates_leave_nothing() -> None:
    def guide() -> None:
        with pyro.plate("groups", 3):
            pyro.sample("intercept", dist.Normal(0.0, 1.0))
        with pyro.plate("many", 10, subsample_size=2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    found = draw(guide, 2)
    assert {site: tuple(value.shape) for site, value in found.items()} == {"intercept": (2, 3), "z": (2, 2)}


class Run:
    """What `draw` needs of an MCMC run."""

    def __init__(self, draws: dict[str, Tensor]) -> None:
        self.draws = draws

    def get_samples(self) -> dict[str, Tensor]:
        return self.draws


@pytest.mark.parametrize("wrap", [dict, Run])
@pytest.mark.parametrize(
    ("held", "wanted", "expected"),
    [
        (10, 10, list(range(10))),
        (10, 4, [0, 3, 6, 9]),
        (10, 3, [0, 4, 9]),
        (10, 1, [0]),
        (4, 100, [0, 1, 2, 3]),
        (1, 5, [0]),
        (100_003, 3, [0, 50_001, 100_002]),
    ],
)
def test_more_draws_than_wanted_are_thinned_evenly(wrap: Any, held: int, wanted: int, expected: list[int]) -> None:
    draws = {"w": torch.arange(held), "v": torch.arange(held).unsqueeze(1).expand(held, 2)}
    found = draw(wrap(draws), wanted)
    assert found["w"].tolist() == expected
    assert found["v"].tolist() == [[i, i] for i in expected]


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("name", ["", "net"])
def test_what_predictive_returns(parallel: bool, name: str) -> None:
    """Axes of size 1 that it leaves for plates go."""
    model = classification(name)
    sites = tuple(model.sites)
    held = Predictive(model, guide=MeanField(model), num_samples=3, parallel=parallel, return_sites=sites)(X)
    found = draw(held, 3, model=model)
    assert {site: value.shape for site, value in found.items()} == {s: (3, *e) for s, e in model.sites.items()}
    for site, value in held.items():
        assert torch.equal(found[site].flatten(), value.flatten())


def test_gradients_are_dropped() -> None:
    assert not draw({"w": torch.zeros(2, requires_grad=True)}, 2)["w"].requires_grad


@pytest.mark.parametrize(
    ("posterior", "draws", "error", "message"),
    [
        ({"w": torch.zeros(3)}, 0, ValueError, "at least one draw is needed, not 0"),
        ({}, 5, ValueError, "the dict of draws is empty"),
        (Run({}), 5, ValueError, "the dict of draws is empty"),
        ({"w": torch.zeros(3), "v": torch.zeros(4)}, 5, ValueError, "they have {'w': 3, 'v': 4}"),
        ({"w": torch.zeros(0)}, 5, ValueError, "they have {'w': 0}"),
        ({"w": torch.tensor(1.0)}, 5, ValueError, "they have {'w': 0}"),
        (torch.zeros(3), 5, TypeError, "a guide, an MCMC run or a dict of draws is needed, not Tensor"),
        (None, 5, TypeError, "not NoneType"),
    ],
)
def test_bad_posteriors(posterior: Any, draws: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        draw(posterior, draws)


@pytest.mark.parametrize("shape", [(3, 2, 5), (3, 2, 2, 4), (3, 8)])
def test_draws_of_another_model(shape: tuple[int, ...]) -> None:
    model = classification()
    held = {site: torch.zeros(3, *event) for site, event in model.sites.items()}
    held["2.weight"] = torch.zeros(shape)
    message = f"a draw of '2.weight' has shape {shape[1:]}, but the model's block has (2, 4)"
    with pytest.raises(ValueError, match=re.escape(message)):
        draw(held, 3, model=model)
