"""How a posterior is tempered: in the loss, on the guide that was trained, with
its draws, and in ArviZ.
"""

import copy
import inspect
import io
import pickle
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from tempering_table import FITTED, LATENT, OTHERS, TRAINED, WEIGHT, Made, X, Y, head, model_of
from torch import Tensor, nn

import bayesnn.guides
import bayesnn.mcmc
import bayesnn.models
from bayesnn import likelihoods, priors
from bayesnn.arviz import to_arviz, to_groups
from bayesnn.guides import (
    FlipoutELBO,
    LocalReparameterisationELBO,
    MeanField,
    MeanFieldELBO,
    RankOneELBO,
    RankOneGuide,
    VariationalLaplaceELBO,
)
from bayesnn.guides.variational_laplace import ProfiledVariances, fit_variances
from bayesnn.models import LatentHead, RankOneEnsemble, latent_rank_one
from bayesnn.predict import draw, predictive
from bayesnn.tempering import noted, noted_draws, of_sampler

SAMPLING = [MeanFieldELBO, LocalReparameterisationELBO, FlipoutELBO]
NAMES = ("kl_weight", "temperature")
every_loss = pytest.mark.parametrize("kind", TRAINED)
every_fit = pytest.mark.parametrize("kind", FITTED)


def made(kind: str) -> Made:
    model, guide, args = TRAINED[kind].make()
    guide(*args)  # Pyro's guides make their parameters then
    return model, guide, args


def said(posterior: Any, model: Any, *args: Any, **options: Any) -> dict[str, Any]:
    attrs = to_groups(posterior, *(args or (X, Y)), model=model, draws=2, predictive=False, **options).attrs
    return {name: attrs[name] for name in NAMES if name in attrs}


def stated(model: Any) -> dict[str, float]:
    """What a model says itself."""
    return {"kl_weight": model.weight_of_kl()} if hasattr(model, "weight_of_kl") else {}


def normal_kl(guide: MeanField) -> Tensor:
    q = torch.distributions.Normal(guide.loc, guide.log_scale.exp())
    return torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(guide.loc), 0.7)).sum()


def public(module: Any) -> dict[str, Any]:
    return {n: v for n, v in vars(module).items() if not n.startswith("_") and not inspect.ismodule(v)}


def test_the_table_has_every_guide_objective_and_sampler() -> None:
    rows = [(*row.make(), row.elbo) for row in TRAINED.values()] + [(*make(), None) for make, _ in FITTED.values()]
    found = {type(one).__name__ for row in rows for one in row} | FITTED.keys() | OTHERS.keys()
    assert public(bayesnn.guides).keys() <= found
    assert public(bayesnn.mcmc).keys() <= found
    models = {name for name, value in public(bayesnn.models).items() if hasattr(value, "outputs")} - {"Model"}
    assert len(models) >= 6
    assert models <= found


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


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 2.0])
def test_the_weight_of_a_model_and_a_factor_of_the_objective_multiply(factor: float) -> None:
    """-ELBO = w KL - E_q log p(y | z), w what the loss says: KL in closed form, of all data."""
    model, guide, args = head()()
    losses: dict[float, float] = {}
    for one in (0.0, factor):
        pyro.set_rng_seed(1)
        losses[one] = MeanFieldELBO(kl_weight=one).loss(model, guide, *args)
    loc, variance = (value.detach() for value in guide.moments(X))
    q, p = torch.distributions.Normal(loc, variance.sqrt()), torch.distributions.Normal(torch.zeros_like(loc), 1.0)
    weight = MeanFieldELBO(kl_weight=factor)(model, guide).metadata["kl_weight"]
    assert weight == factor / LATENT
    kl = model.size / len(X) * torch.distributions.kl_divergence(q, p).sum().item()
    assert losses[factor] - losses[0.0] == pytest.approx(weight * kl, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("elbo", SAMPLING)
@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_refused(elbo: Any, weight: float) -> None:
    with pytest.raises(ValueError, match=f"{elbo.__name__}: kl_weight is a finite number from 0, not {weight}"):
        elbo(kl_weight=weight)


@every_loss
def test_the_loss_says_it(kind: str) -> None:
    model, guide, _ = made(kind)
    _, elbo, weight = TRAINED[kind]
    loss = elbo(model, guide)
    assert loss.metadata["objective"] == type(elbo).__name__
    assert loss.metadata["kl_weight"] == weight
    assert f"objective={type(elbo).__name__}, kl_weight={weight}" in repr(loss)


@every_loss
def test_training_leaves_it_with_the_posterior(kind: str) -> None:
    model, guide, args = made(kind)
    _, elbo, weight = TRAINED[kind]
    assert said(guide, model, *args) == stated(model)
    loss = elbo(model, guide)(*args)
    elbo.loss(model, guide, *args)
    assert noted(guide) == {}  # nothing was trained so far
    loss.backward()
    expected = {"kl_weight": weight}
    assert said(guide, model, *args) == expected
    assert said([guide, guide], model, *args) == expected
    for other in (copy.copy(guide), copy.deepcopy(guide), pickle.loads(pickle.dumps(guide))):
        assert noted(other) == expected
    assert to_arviz(guide, *args, model=model, draws=2)["posterior"].attrs["kl_weight"] == weight


@every_loss
def test_draws_of_the_posterior_carry_it(kind: str) -> None:
    model, guide, args = made(kind)
    _, elbo, weight = TRAINED[kind]
    assert noted(draw(guide, 2, *args)) == {}
    elbo(model, guide)(*args).backward()
    draws = draw(guide, 3, *args)
    assert noted(draw(draws, 2)) == {"kl_weight": weight}
    assert said(draws, model, *args) == {"kl_weight": weight}
    assert said({**draws}, model, *args) == {}  # an ordinary dict says nothing


@every_loss
def test_svi_leaves_it_too(kind: str) -> None:
    model, guide, args = made(kind)
    _, elbo, weight = TRAINED[kind]
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    svi.evaluate_loss(*args)
    assert noted(guide) == {}
    svi.step(*args)
    assert noted(guide) == {"kl_weight": weight}


@pytest.mark.parametrize("kind", [kind for kind in TRAINED if "of Pyro's" not in kind])
def test_a_state_dict_carries_it(kind: str) -> None:
    model, guide, args = made(kind)
    _, elbo, weight = TRAINED[kind]
    untrained, file = guide.state_dict(), io.BytesIO()
    elbo(model, guide)(*args).backward()
    torch.save(guide.state_dict(), file)
    file.seek(0)
    _, other, _ = made(kind)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert noted(other) == {"kl_weight": weight}
    other.load_state_dict(untrained)
    assert noted(other) == {}


@every_fit
def test_posteriors_that_no_elbo_trained(kind: str) -> None:
    make, expected = FITTED[kind]
    model, posterior, args = make()
    assert said(posterior, model, *args) == expected
    assert said([posterior, posterior], model, *args) == expected


def test_draws_at_a_temperature() -> None:
    """Through prediction, copies and files; another temperature beside it is told apart."""
    model, cold, _ = FITTED["sghmc, cold"][0]()
    _, warm, _ = FITTED["sghmc"][0]()
    assert predictive(cold, X, model=model).probs.shape == (6, 2)
    file = io.BytesIO()
    torch.save(cold, file)
    file.seek(0)
    for other in (copy.copy(cold), copy.deepcopy(cold), torch.load(file, weights_only=True), draw(cold, 1)):
        assert noted(other) == {"temperature": 0.5}
    grouped = noted_draws({site: torch.stack([value, value]) for site, value in cold.items()}, noted(cold))
    assert said(grouped, model, group_by_chain=True) == {"temperature": 0.5}
    assert said([cold, warm, {**warm}], model) == {"temperature": "0.5, 1.0, unknown"}
    guide = MeanField(model)
    MeanFieldELBO(kl_weight=WEIGHT)(model, guide)(X, Y).backward()
    assert said([guide, cold], model) == {"kl_weight": "0.25, unknown", "temperature": "unknown, 0.5"}


def test_draws_of_members_carry_it() -> None:
    model, guide, args = made("LP-BNN, by a factor")
    assert said(guide.draws(), model, *args) == stated(model)
    _, elbo, weight = TRAINED["LP-BNN, by a factor"]
    elbo(model, guide)(*args).backward()
    assert said(guide.draws(2), model, *args) == {"kl_weight": weight}
    assert said(guide.draws(2, group_by_chain=True), model, *args, group_by_chain=True) == {"kl_weight": weight}


def test_pyros_own_elbo_weighs_as_the_model_states() -> None:
    model, guide, args = made("V-TST, as published")
    Trace_ELBO()(model, guide)(*args).backward()
    assert noted(guide) == {}
    assert said(guide, model, *args) == {"kl_weight": 1 / LATENT}


def test_a_sampler_of_a_model_that_states_its_weight_has_a_temperature_too() -> None:
    """The density is (p(z) p(y | z)^(1 / lambda))^(1 / T), up to a constant."""
    model = LatentHead(LATENT, 2, likelihoods.categorical)
    tempering = of_sampler(model)
    draws = {"z": torch.randn(2, len(X), LATENT)}
    found = to_groups(draws, X, Y, model=model, predictive=False).arrays
    likelihood = found["log_likelihood"]["y"][0].sum(-1) / tempering["kl_weight"]
    prior = dist.Normal(0.0, 1.0).log_prob(draws["z"]).sum((1, 2)).numpy()
    first, second = (prior + likelihood) / tempering["temperature"]
    lp = found["sample_stats"]["lp"][0]
    assert lp[0] - lp[1] == pytest.approx(first - second, rel=1e-5)
    assert of_sampler(model, 0.5) == {"kl_weight": 1 / LATENT, "temperature": 0.5 * LATENT}
    assert of_sampler(model_of()) == {}
    assert of_sampler(model_of(), 0.5) == {"temperature": 0.5}


def test_a_model_in_a_handler_and_heads_that_are_shared() -> None:
    model, guide, args = made("V-TST, by a factor")
    _, elbo, weight = TRAINED["V-TST, by a factor"]
    hidden = poutine.mask(model, mask=True)
    loss = elbo(hidden, guide.of_features())
    assert loss.metadata["kl_weight"] == weight
    loss(guide.phi(args[0]), args[1]).backward()
    assert said(guide, model, *args) == {"kl_weight": weight}


def test_the_weight_of_a_batch_that_is_all_data() -> None:
    model = RankOneEnsemble(latent_rank_one(nn.Sequential(nn.Linear(3, 2)), 2, latent=2), likelihoods.categorical)
    guide = RankOneGuide(model)
    loss = RankOneELBO()(model, guide)
    assert loss.metadata["kl_weight"] == "that of each batch"
    loss(X, Y).backward()
    assert noted(guide) == {"kl_weight": len(X) * 2 / (1 + 1)}


def test_looking_at_another_objective_changes_nothing() -> None:
    """Also with gradients on, as in a notebook; further training does."""
    model, guide, _ = made("MeanFieldELBO")
    MeanFieldELBO(kl_weight=WEIGHT)(model, guide)(X, Y).backward()
    other = MeanFieldELBO()(model, guide)(X, Y)
    assert said(guide, model) == {"kl_weight": WEIGHT}
    other.backward()
    assert said(guide, model) == {"kl_weight": 1.0}


def test_variances_in_closed_form_are_those_of_a_weight() -> None:
    model = model_of()
    guide = fit_variances(MeanField(model), [(X, Y)], kl_weight=WEIGHT)
    assert said(guide, model) == {"kl_weight": WEIGHT}
    guide = MeanField(model)
    ProfiledVariances(VariationalLaplaceELBO(kl_weight=0.5)(model, guide), [(X, Y)], every_calls=1)(X, Y).backward()
    assert said(guide, model) == {"kl_weight": 0.5}


def test_chains_of_different_weights_and_posteriors_without_one() -> None:
    model, guide, _ = made("MeanFieldELBO")
    plain = MeanField(model)
    for one, weight in ((guide, WEIGHT), (plain, 1.0)):
        MeanFieldELBO(kl_weight=weight)(model, one)(X, Y).backward()
    assert said([guide, plain, guide], model) == {"kl_weight": "0.25, 1.0"}
    assert said([guide, MeanField(model)], model) == {"kl_weight": "0.25, unknown"}


def test_a_function_as_a_guide() -> None:
    loc = nn.Parameter(torch.zeros(()))

    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(w, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("w", dist.Normal(loc, 0.5))

    VariationalLaplaceELBO(kl_weight=WEIGHT).differentiable_loss(model, guide, X[:, 0]).backward()
    assert said(guide, model, X[:, 0]) == {"kl_weight": WEIGHT}
