"""The posterior comes first and the model is a keyword: in any other place it
is refused, with the repair.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from pyro.infer.autoguide import AutoNormal

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import to_arviz, to_groups
from bayesnn.guides import Laplace, MeanField
from bayesnn.predict import draw, predict, predictive
from bayesnn.subset import everything

X, Y = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(7).long()
NET = mlp()
MODEL = BNN(NET, subset.last_layer(NET), priors.normal(0.7), likelihoods.categorical)
GUIDE = MeanField(MODEL)
HELD = draw(GUIDE, 3)

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "predict": predict,
    "predictive": predictive,
    "to_arviz": lambda *args, **keywords: to_groups(*args, Y, **keywords),
    "draw": lambda posterior, *args, **keywords: draw(posterior, 2, *args, **keywords),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
PLACES: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "the old order": (
        (MODEL, GUIDE, X),
        {},
        r"the posterior comes first, but a BNN is a model.*\(posterior, ..., model=",
    ),
    "the old order with draws": ((MODEL, HELD, X), {}, "the posterior comes first, but a BNN is a model"),
    "to_arviz's old order": (
        (GUIDE, MODEL, X),
        {},
        r"no model, but here a BNN; its place is the keyword model=, \w+\(post",
    ),
    "to_arviz's old order with draws": (
        (HELD, MODEL, X),
        {},
        "no model, but here a BNN; its place is the keyword model=",
    ),
    "a guide as the model": ((GUIDE, X), {"model": GUIDE}, "this MeanField is a posterior; leave out model="),
    "another guide as the model": ((GUIDE, X), {"model": MeanField(MODEL)}, "this MeanField is a posterior; leave out"),
}


@every_function
@pytest.mark.parametrize("place", PLACES)
def test_a_model_in_another_place(name: str, place: str) -> None:
    args, keywords, message = PLACES[place]
    with pytest.raises(TypeError, match=f"{name}: .*{message}"):
        FUNCTIONS[name](*args, **keywords)


@pytest.mark.parametrize("name", ["predict", "predictive", "to_arviz"])
@pytest.mark.parametrize("posterior", [HELD, GUIDE.forward, [HELD, HELD], []])
def test_what_does_not_know_its_model_needs_it(name: str, posterior: Any) -> None:
    message = (
        rf"{name}: this {type(posterior).__name__} does not say which model.*{name}\(posterior, ..., model=model\)"
    )
    with pytest.raises(TypeError, match=message):
        FUNCTIONS[name](posterior, X)


def test_a_pyro_model_in_another_place() -> None:
    """A plain function: it is known as a model only where it is the posterior's own."""

    def line(x: Any, y: Any) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean * x, 1.0), obs=y)

    x, y = torch.randn(5), torch.randn(5)
    guide = AutoNormal(line)
    guide(x, y)
    with pytest.raises(TypeError, match="to_arviz: after the posterior comes no model, but here a function"):
        to_groups(guide, line, x, y)
    assert to_groups(guide, x, y, draws=2).arrays["posterior"]["mean"].shape == (1, 2)
    with pytest.raises(TypeError, match=r"the model of this AutoNormal is a Pyro model without the outputs of one net"):
        predict(guide, x)
    with pytest.raises(TypeError, match=r"predict: model= is a Pyro model without the outputs of one network"):
        predict(guide, x, model=line)  # type: ignore[arg-type]


@pytest.mark.parametrize("draws", [MODEL, X, 2.5])
def test_draws_is_a_number(draws: Any) -> None:
    for call in (lambda: draw(GUIDE, draws), lambda: predict(GUIDE, X, draws)):
        with pytest.raises(
            TypeError, match=f"draws is how many, not a {type(draws).__name__}; the posterior comes first"
        ):
            call()


def test_draws_from_the_prior() -> None:
    assert predict(MODEL.sample, X, 3, model=MODEL).shape == (3, 7, 2)


def test_a_model_whose_noise_was_fitted() -> None:
    """The noise of y is 0.1, the model's 1: the guide's model has the fitted one, and the old
    model is refused.
    """
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 2.0]]))
        net.bias.zero_()
    x = torch.randn(200, 2)
    y = x @ torch.tensor([[1.0], [2.0]]) + 0.1 * torch.randn(200, 1)
    model = BNN(net, everything(net), priors.normal(1.0), likelihoods.normal(1.0), size=200)
    guide = Laplace(model).fit([(x, y)]).maximise_evidence(fit_noise=True)
    noise = guide.model.likelihood.scale  # type: ignore[attr-defined]
    assert noise == pytest.approx(0.1, rel=0.15)
    for keywords in ({}, {"linearised": True}):
        p = predictive(guide, x[:1], 50, **keywords)  # type: ignore[arg-type]
        assert p.aleatoric_variance.item() == pytest.approx(noise**2, rel=1e-5)
        assert p.variance.item() < 0.02
    tree = to_arviz(guide, x, y, draws=2)
    held = {site: torch.as_tensor(tree["posterior"][site].values[0]) for site in model.sites}
    expected = guide.model.likelihood(predict(held, x, 2, model=guide.model)).log_prob(y)
    torch.testing.assert_close(torch.as_tensor(tree["log_likelihood"]["y"].values[0]), expected)
    refused = (
        r"is of another model: its likelihood is Normal\(scale=0.\d+\) there and Normal\(scale=1\) here; leave out mod"
    )
    for call in (
        lambda: predict(guide, x, model=model),
        lambda: predictive(guide, x, model=model),
        lambda: predictive(guide, x, model=model, linearised=True),
        lambda: draw(guide, model=model),
        lambda: to_arviz(guide, x, y, model=model),
    ):
        with pytest.raises(ValueError, match=refused):
            call()
