"""The weight of the KL divergence: in the loss, on the guide that was trained, and with the posterior in ArviZ."""

import copy
import pickle
from typing import Any

import pyro
import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from pyro.infer import SVI
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import to_arviz, to_groups
from bayesnn.guides import (
    FlipoutELBO,
    Laplace,
    LocalReparameterisationELBO,
    MeanField,
    MeanFieldELBO,
    MomentPropagationELBO,
    MultiplicativeNoise,
    SharedVariance,
    VariationalLaplaceELBO,
)
from bayesnn.guides.variational_laplace import fit_variances
from bayesnn.models.tempering import kl_weight_of

X, Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0, 1, 0])
WEIGHT = 0.25

SAMPLING = [MeanFieldELBO, LocalReparameterisationELBO, FlipoutELBO]
TEMPERED: dict[str, tuple[Any, Any]] = {
    "MeanFieldELBO": (MeanField, MeanFieldELBO),
    "LocalReparameterisationELBO": (MeanField, LocalReparameterisationELBO),
    "FlipoutELBO": (MeanField, FlipoutELBO),
    "VariationalLaplaceELBO": (SharedVariance, VariationalLaplaceELBO),
    "VariationalLaplaceELBO of a guide of Pyro's": (AutoNormal, VariationalLaplaceELBO),
    "MomentPropagationELBO": (MultiplicativeNoise, MomentPropagationELBO),
}
every_loss = pytest.mark.parametrize("kind", TEMPERED)


def model_of(prior: Any = None) -> BNN:
    net = mlp()
    prior = priors.normal(0.7) if prior is None else prior
    return BNN(net, subset.everything(net), prior, likelihoods.categorical, size=18)


def made(kind: str) -> tuple[BNN, Any, Any]:
    model = model_of()
    guide, elbo = TEMPERED[kind][0](model), TEMPERED[kind][1](kl_weight=WEIGHT)
    guide(X, Y)  # Pyro's guides make their parameters then
    return model, guide, elbo


def attrs(posterior: Any, model: Any, *args: Any) -> Any:
    return to_groups(posterior, *(args or (X, Y)), model=model, draws=2, predictive=False).attrs


def normal_kl(guide: MeanField) -> Tensor:
    q = torch.distributions.Normal(guide.loc, guide.log_scale.exp())
    return torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(guide.loc), 0.7)).sum()


@pytest.mark.parametrize("elbo", SAMPLING)
@pytest.mark.parametrize("weight", [0.0, WEIGHT, 3.0])
def test_it_multiplies_the_kl_alone(elbo: Any, weight: float) -> None:
    """The same draws: the losses differ by the closed form, and so do their gradients."""
    guide = MeanField(model_of(), scale=0.3)
    pairs = []
    for one in (elbo(kl_weight=weight), elbo()):
        pyro.set_rng_seed(1)
        loss = one(guide.model, guide)(X, Y)
        pairs.append([loss, *torch.autograd.grad(loss, [guide.loc, guide.log_scale])])
    kl = normal_kl(guide)
    expected = [kl, *torch.autograd.grad(kl, [guide.loc, guide.log_scale])]
    for tempered, plain, exact in zip(*pairs, expected, strict=True):
        torch.testing.assert_close(tempered - plain, (weight - 1) * exact, rtol=1e-4, atol=1e-4)


def test_it_multiplies_a_drawn_kl_too() -> None:
    model = model_of(priors.laplace(0.5))
    guide = MeanField(model, scale=0.3)
    losses = {}
    for weight in (0.0, WEIGHT, 1.0):
        pyro.set_rng_seed(1)
        losses[weight] = MeanFieldELBO(kl_weight=weight).loss(model, guide, X, Y)
    assert losses[WEIGHT] == pytest.approx((1 - WEIGHT) * losses[0.0] + WEIGHT * losses[1.0], rel=1e-5)
    assert losses[1.0] > losses[0.0] + 1


@pytest.mark.parametrize("elbo", SAMPLING)
@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_refused(elbo: Any, weight: float) -> None:
    with pytest.raises(ValueError, match=f"{elbo.__name__}: kl_weight is a finite number from 0, not {weight}"):
        elbo(kl_weight=weight)


@every_loss
def test_the_loss_says_it(kind: str) -> None:
    model, guide, elbo = made(kind)
    loss = elbo(model, guide)
    assert loss.metadata["objective"] == type(elbo).__name__
    assert loss.metadata["kl_weight"] == WEIGHT
    assert f"objective={type(elbo).__name__}, kl_weight={WEIGHT}" in repr(loss)


@every_loss
def test_training_leaves_it_with_the_posterior(kind: str) -> None:
    model, guide, elbo = made(kind)
    assert "kl_weight" not in attrs(guide, model)
    loss = elbo(model, guide)(X, Y)
    elbo.loss(model, guide, X, Y)
    assert kl_weight_of(guide) is None  # nothing was trained so far
    loss.backward()
    assert attrs(guide, model)["kl_weight"] == WEIGHT
    assert attrs([guide, guide], model)["kl_weight"] == WEIGHT
    for other in (copy.deepcopy(guide), pickle.loads(pickle.dumps(guide))):
        assert kl_weight_of(other) == WEIGHT
    assert to_arviz(guide, X, Y, model=model, draws=2)["posterior"].attrs["kl_weight"] == WEIGHT


@every_loss
def test_svi_leaves_it_too(kind: str) -> None:
    model, guide, elbo = made(kind)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    svi.evaluate_loss(X, Y)
    assert kl_weight_of(guide) is None
    svi.step(X, Y)
    assert kl_weight_of(guide) == WEIGHT


def test_looking_at_another_objective_changes_nothing() -> None:
    """Also with gradients on, as in a notebook; further training does."""
    model, guide, elbo = made("MeanFieldELBO")
    elbo(model, guide)(X, Y).backward()
    other = MeanFieldELBO()(model, guide)(X, Y)
    assert attrs(guide, model)["kl_weight"] == WEIGHT
    other.backward()
    assert attrs(guide, model)["kl_weight"] == 1.0


def test_a_state_dict_carries_it() -> None:
    model, guide, elbo = made("MeanFieldELBO")
    untrained = guide.state_dict()
    elbo(model, guide)(X, Y).backward()
    other = MeanField(model)
    other.load_state_dict(guide.state_dict())
    assert kl_weight_of(other) == WEIGHT
    other.load_state_dict(untrained)
    assert kl_weight_of(other) is None


def test_variances_in_closed_form_are_those_of_a_weight() -> None:
    model = model_of()
    guide = fit_variances(MeanField(model), [(X, Y)], kl_weight=WEIGHT)
    assert attrs(guide, model)["kl_weight"] == WEIGHT


def test_chains_of_different_weights_and_posteriors_without_one() -> None:
    model, guide, elbo = made("MeanFieldELBO")
    elbo(model, guide)(X, Y).backward()
    plain = MeanField(model)
    MeanFieldELBO()(model, plain)(X, Y).backward()
    assert attrs([guide, plain, guide], model)["kl_weight"] == "0.25, 1.0"
    assert attrs([guide, MeanField(model)], model)["kl_weight"] == "0.25, unknown"
    held = {site: value.expand(2, *value.shape) for site, value in model.values().items()}
    for posterior in (held, Laplace(model).fit([(X, Y)])):
        assert "kl_weight" not in attrs(posterior, model)


def test_a_function_as_a_guide() -> None:
    loc = nn.Parameter(torch.zeros(()))

    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(w, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("w", dist.Normal(loc, 0.5))

    VariationalLaplaceELBO(kl_weight=WEIGHT).differentiable_loss(model, guide, X[:, 0]).backward()
    assert attrs(guide, model, X[:, 0])["kl_weight"] == WEIGHT
