"""A posterior of another model is refused, and nothing else is."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import mlp
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoNormal
from torch import nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import to_groups
from bayesnn.guides import Laplace, LastLayer, MeanField
from bayesnn.models import NeuralLinear
from bayesnn.predict import draw, predict, predictive
from bayesnn.predict.ownership import own_model

X, Y = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(7).long()
NET = mlp()


def model_of(net: nn.Module = NET, chosen: Any = None, name: str = "", scale: float = 0.7) -> BNN:
    chosen = subset.last_layer(net) if chosen is None else chosen
    return BNN(net, chosen, priors.normal(scale), likelihoods.categorical, name=name)


class CertainCategorical(type(likelihoods.categorical)):  # type: ignore[misc]
    """A likelihood of another class."""


CERTAIN = CertainCategorical()


def entries(*which: int) -> subset.Subset:
    return subset.Subset({name: p.shape for name, p in NET.named_parameters()}, {"2.weight": torch.tensor(which)})


def shifted(name: str) -> nn.Module:
    net = copy.deepcopy(NET)
    with torch.no_grad():
        net.get_parameter(name).add_(1.0)
    return net


OTHERS: dict[str, tuple[Callable[[], BNN], Callable[[], BNN], str]] = {
    "a wider network": (model_of, lambda: model_of(mlp(hidden=9)), r"'2.weight' has shape \(2, 4\) here and \(2, 9\)"),
    "more random": (
        model_of,
        lambda: model_of(chosen=subset.everything(NET)),
        r"'0.weight' is random there, but not here, where the sites are 2.weight, 2.bias",
    ),
    "less random": (
        lambda: model_of(chosen=subset.everything(NET)),
        model_of,
        "'0.weight' is random here, but not there, where the sites are 2.weight, 2.bias",
    ),
    "another likelihood": (
        model_of,
        lambda: model_of().with_likelihood(CERTAIN),
        r"its likelihood is CertainCategorical\(\) there and Categorical\(\) here",
    ),
    "another prior": (
        model_of,
        lambda: model_of(scale=3.0),
        r"its prior is Normal\(loc=0, scale=3\) there and Normal\(loc=0, scale=0.7\) here",
    ),
    "another name": (model_of, lambda: model_of(name="net"), "'2.weight' is random here, but not there"),
    "other entries": (
        lambda: model_of(chosen=entries(0, 1)),
        lambda: model_of(chosen=entries(0, 2)),
        r"the random entries have other places.*see model.subset",
    ),
    "another body": (model_of, lambda: model_of(shifted("0.bias")), "'0.bias' of the network, which is not random"),
    "the rest of a tensor": (
        lambda: model_of(chosen=entries(0, 1)),
        lambda: model_of(shifted("2.weight"), entries(0, 1)),
        "'2.weight' of the network, which is not random, has other values there",
    ),
}


def laplace(model: BNN) -> Laplace:
    return Laplace(model).fit([(X, Y)])


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("guide", [MeanField, laplace])
def test_a_guide_of_another_model(kind: str, guide: Any) -> None:
    here, there, message = OTHERS[kind]
    model, other = here(), guide(there())
    refused = f"this {type(other).__name__} is of another model: {message}.*leave out model=, which is then the"
    with pytest.raises(ValueError, match=f"predict: {refused}"):
        predict(other, X, 2, model=model)
    with pytest.raises(ValueError, match=f"predictive: {refused}"):
        predictive(other, X, 2, model=model)
    with pytest.raises(ValueError, match=f"predictive: {refused}"):
        predictive(other, X, 2, model=model, linearised=True)
    with pytest.raises(ValueError, match=f"draw: {refused}"):
        draw(other, 2, model=model)
    with pytest.raises(ValueError, match=f"to_arviz: {refused}"):
        to_groups(other, X, Y, model=model, draws=2)
    assert predict(other, X, 2).shape == (2, 7, 2)


def test_guides_of_pyro_and_mcmc_runs() -> None:
    model, other = model_of(), model_of(shifted("0.bias"))
    guide = AutoNormal(other)
    guide(X, Y)
    run = MCMC(NUTS(other), num_samples=2, warmup_steps=2, disable_progbar=True)
    run.run(X, Y)
    for posterior in (guide, run):
        with pytest.raises(ValueError, match=f"predict: this {type(posterior).__name__} is of another model: '0.bias'"):
            predict(posterior, X, 2, model=model)
        with pytest.raises(
            ValueError, match=f"to_arviz: this {type(posterior).__name__} is of another model: '0.bias'"
        ):
            to_groups(posterior, X, Y, model=model, draws=2)
        assert predict(posterior, X, 2, model=other).shape == predict(posterior, X, 2).shape == (2, 7, 2)
        assert to_groups(posterior, X, Y, draws=2).arrays["posterior"]["2.bias"].shape == (1, 2, 2)
    with pytest.raises(ValueError, match=r"to_arviz: this AutoNormal is of another model: '0.bias'"):
        to_groups([MeanField(model), guide], X, Y, draws=2)  # the model is that of the first


def test_a_learned_body_belongs_to_its_guide() -> None:
    models = [NeuralLinear(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), 4, 2, likelihoods.categorical) for _ in range(2)]
    with pytest.raises(ValueError, match=r"'0.weight' of the network, which is not random, has other values there"):
        predict(LastLayer(models[1]), X, 2, model=models[0])
    assert predict(LastLayer(models[0]), X, 2, model=models[0]).shape == (2, 7, 2)


def test_what_is_no_other_model() -> None:
    """A model made twice, a copy, a network whose random weights moved on, draws, and what does
    not say whose it is.
    """
    model = model_of()
    for other in (
        MeanField(model_of()),
        copy.deepcopy(MeanField(model)),
        pickle.loads(pickle.dumps(MeanField(model))),
        MeanField(model_of(shifted("2.bias"))),
        draw(MeanField(model_of(shifted("0.bias"))), 2),
        MeanField(model_of(shifted("0.bias"))).forward,
    ):
        assert predict(other, X, 2, model=model).shape == (2, 7, 2)


def test_a_guide_of_pyros_that_forgot_its_model() -> None:
    """Pickling takes it from the guide that is pickled as well."""
    model = model_of()
    guide = AutoNormal(model)
    guide(X, Y)
    assert own_model(guide) is model
    for other in (pickle.loads(pickle.dumps(guide)), guide):
        assert own_model(other) is None
        with pytest.raises(TypeError, match="predict: this AutoNormal does not say which model it is of"):
            predict(other, X, 2)
        assert predict(other, X, 2, model=model).shape == (2, 7, 2)
        assert to_groups(other, X, Y, model=model, draws=2).attrs["method"] == "AutoNormal"
