"""Pyro's own inference on `BNN`: ELBOs looped and vectorised, both modes of `Predictive`, NUTS,
learned parameters.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Untouched
from models_table import CLASSES, COUNTS, MODELS, REAL, made, small
from nets import mlp
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal, init_to_mean, init_to_median
from pyro.optim import Adam  # type: ignore[attr-defined]
from statistical import assert_same_mean
from torch import Tensor

from bayesnn import BNN, learned, likelihoods, priors
from bayesnn.likelihoods import Likelihood
from bayesnn.models import likelihood_given
from bayesnn.priors import Prior
from bayesnn.subset import everything, named

every_model = pytest.mark.parametrize("kind", MODELS)


@every_model
def test_vectorised_elbos_equal_looped_ones(kind: str, untouched: Untouched) -> None:
    """Exactly, value and gradient, for a guide without noise."""
    model, x, y = MODELS[kind]()
    guide = AutoDelta(model, init_loc_fn=init_to_median(num_samples=3))
    results = []
    with untouched(model.net):
        for elbo in (Trace_ELBO(), Trace_ELBO(num_particles=4), Trace_ELBO(num_particles=4, vectorize_particles=True)):
            loss = elbo(model, guide)(x, y)
            gradients = torch.autograd.grad(loss, [*guide.parameters(), *model.parameters()])
            results.append((loss.detach(), *gradients))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[2], results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["categorical", "normal, latent", "latent variance, some entries"])
def test_vectorised_elbos_have_the_looped_ones_expectation(kind: str) -> None:
    model, x, y = MODELS[kind]()
    guide = AutoNormal(model, init_scale=0.1)
    looped, vectorised = Trace_ELBO(), Trace_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=1)
    with torch.no_grad():
        singles = torch.stack([looped(model, guide)(x, y) for _ in range(150)])
        means = torch.stack([vectorised(model, guide)(x, y) for _ in range(30)])
    assert_same_mean(singles, means)


@every_model
@pytest.mark.parametrize("vectorised", [False, True])
def test_mean_field_elbo(kind: str, vectorised: bool, parameter_mode: bool, untouched: Untouched) -> None:
    model, x, y = MODELS[kind]()
    with untouched(model.net):
        elbo = TraceMeanField_ELBO(num_particles=2, vectorize_particles=vectorised)(model, AutoNormal(model))
        loss = elbo(x, y)
        loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in elbo.parameters())


@every_model
@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_with_a_guide(kind: str, parallel: bool, untouched: Untouched) -> None:
    model, x, y = MODELS[kind]()
    prefix = f"{model.name}." if model.name else ""
    guide = AutoDiagonalNormal(model, init_scale=0.1)
    # the guide sets itself up with y: without it y would be latent
    Trace_ELBO()(model, guide)(x, y)
    with untouched(model.net):
        found = Predictive(model, guide=guide, num_samples=5, parallel=parallel)(x)
    assert found[prefix + "y"].shape == (5, *y.shape)
    assert found[prefix + "y"].isfinite().all()


@every_model
@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_with_draws_is_a_function_of_the_draws(kind: str, parallel: bool, untouched: Untouched) -> None:
    """Its outputs are `model.outputs` at each draw; its y follow the likelihood
    at each draw's own scales.
    """
    model, x, y = MODELS[kind]()
    prefix = f"{model.name}." if model.name else ""
    guide = AutoNormal(model, init_scale=0.1)
    Trace_ELBO()(model, guide)(x, y)
    draws = {site: value.detach() for site, value in Predictive(guide, num_samples=4)(x, y).items()}
    with untouched(model.net):
        sites = ("_RETURN", prefix + "y")
        found = Predictive(model, posterior_samples=draws, parallel=parallel, return_sites=sites)(x)
    expected = torch.stack([model.outputs({site: draws[site][i] for site in model.sites}, x) for i in range(4)])
    torch.testing.assert_close(found["_RETURN"], expected.detach(), rtol=1e-4, atol=1e-5)
    predicted = likelihood_given(model.likelihood, expected, draws, name=model.name)
    assert predicted.log_prob(found[prefix + "y"]).isfinite().all()


def short_run(model: Any, *args: object, **options: Any) -> dict[str, Tensor]:
    mcmc = MCMC(NUTS(model, max_tree_depth=2), num_samples=3, warmup_steps=2, disable_progbar=True, **options)
    mcmc.run(*args)
    samples: dict[str, Tensor] = mcmc.get_samples(group_by_chain=True)
    return samples


@pytest.mark.parametrize("kind", ["categorical", "normal, latent", "latent variance, some entries", "dict", "poisson"])
def test_nuts_with_one_chain(kind: str, untouched: Untouched) -> None:
    model, x, y = MODELS[kind]()
    with untouched(model.net):
        samples = short_run(model, x, y)
    assert set(model.sites) <= set(samples)
    for site, shape in model.sites.items():
        assert samples[site].shape == (1, 3, *shape)
        assert samples[site].isfinite().all()


def test_nuts_with_two_chains(untouched: Untouched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains are processes: model, prior and likelihood travel there by pickle."""
    # Pyro leaves one core free, or runs no process
    monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 3)
    model, x, y = MODELS["latent variance, some entries"]()
    with untouched(model.net):
        samples = short_run(model, x, y, num_chains=2, mp_context="spawn")
    for site, shape in model.sites.items():
        assert samples[site].shape == (2, 3, *shape)
    assert not torch.equal(*next(iter(samples.values())))


def test_nuts_and_a_guide_agree_on_a_conjugate_model() -> None:
    """y ~ N(w x, 1) with w ~ N(0, 1): the posterior is normal in closed form."""
    net = torch.nn.Linear(1, 1, bias=False)
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [1.0]])
    model = BNN(net, everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    precision, mean = 1 + 5.0, 3 / 6
    guide = AutoNormal(model, init_loc_fn=init_to_mean)
    loss = Trace_ELBO(num_particles=50, vectorize_particles=True)(model, guide)
    loss(x, y)
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss(x, y).backward()
        optimiser.step()
    assert guide.locs.weight.item() == pytest.approx(mean, abs=0.05)
    assert guide.scales.weight.item() == pytest.approx(precision**-0.5, rel=0.1)


LEARNED: dict[str, Callable[[], tuple[Prior, Likelihood, Tensor]]] = {
    "priors.normal": lambda: (priors.normal(learned(0.5)), likelihoods.categorical, CLASSES),
    "priors.laplace": lambda: (priors.laplace(learned(0.5)), likelihoods.categorical, CLASSES),
    "priors.student_t": lambda: (priors.student_t(3.0, learned(0.5)), likelihoods.categorical, CLASSES),
    "priors.around": lambda: (priors.around(mlp(), learned(0.5)), likelihoods.categorical, CLASSES),
    "likelihoods.normal": lambda: (priors.normal(), likelihoods.normal(learned(0.5)), REAL),
    "likelihoods.student_t": lambda: (priors.normal(), likelihoods.student_t(learned(4.0), learned(0.5)), REAL),
    "likelihoods.negative_binomial": lambda: (priors.normal(), likelihoods.negative_binomial(learned(2.0)), COUNTS),
}


def trained(model: BNN, x: Any, y: Tensor, elbo: Any) -> list[tuple[Tensor, Tensor]]:
    """(before, after) of every parameter of the loss."""
    loss = elbo(model, AutoNormal(model))
    loss(x, y)  # Pyro's guides make their parameters at the first call
    before = [p.detach().clone() for p in loss.parameters()]
    own = {id(p) for p in model.net.parameters()}
    assert not own & {id(p) for p in loss.parameters()}
    assert not {p.data_ptr() for p in model.net.parameters()} & {p.data_ptr() for p in loss.parameters()}
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        loss(x, y).backward()
        optimiser.step()
    return list(zip(before, [p.detach() for p in loss.parameters()], strict=True))


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_learned_parameters_move_and_the_networks_never(
    kind: str, elbo: Callable[[], Any], parameter_mode: bool, untouched: Untouched
) -> None:
    prior, likelihood, y = LEARNED[kind]()
    model, x, y = small(prior, likelihood, y)
    generative = [(name, p, p.detach().clone()) for name, p in model.named_parameters()]
    assert generative
    with untouched(model.net):
        moves = trained(model, x, y, elbo())
    assert len(moves) == 2 * len(model.sites) + len(generative)
    assert all((before != after).all() for before, after in moves)
    for name, parameter, before in generative:
        assert not torch.equal(parameter, before), name


def centred_at_the_network(name: str, value: Tensor) -> dist.TorchDistribution:
    return dist.Normal(value, 1.0)


def partly(net: torch.nn.Module) -> Any:
    return named(net, "0.weight", "2.bias")


@pytest.mark.parametrize("prior", ["around", "user's own"])
@pytest.mark.parametrize("guide", [AutoNormal, AutoDelta])
def test_guides_that_start_at_the_prior_mean_share_no_storage(
    prior: str, guide: Callable[..., Any], parameter_mode: bool, untouched: Untouched
) -> None:
    """Pyro takes a starting value as it is, without a clone: training it would
    train what it came from.
    """
    net = mlp()
    chosen: Any = priors.around(net, 1.0) if prior == "around" else centred_at_the_network
    model, x, y = made(net, torch.randn(3, 3), CLASSES, chosen, likelihoods.categorical, partly(net))
    value = torch.zeros(4, 3)
    centre = chosen("0.weight", value).mean.clone()
    with untouched(net):
        loss = Trace_ELBO()(model, guide(model, init_loc_fn=init_to_mean))
        loss(x, y)
        optimiser = torch.optim.SGD(loss.parameters(), lr=1.0)
        loss(x, y).backward()
        optimiser.step()
    assert torch.equal(chosen("0.weight", value).mean, centre)


def test_pyros_own_svi_and_optimisers(untouched: Untouched) -> None:
    """The classical interface trains the guide through Pyro's global store."""
    model, x, y = MODELS["categorical"]()
    guide = AutoNormal(model)
    with untouched(model.net):
        svi = SVI(model, guide, Adam({"lr": 0.05}), Trace_ELBO())
        losses = [svi.step(x, y) for _ in range(60)]
    assert sum(losses[-20:]) < sum(losses[:20])


def test_vectorised_particles_without_any_plate_say_what_to_do() -> None:
    """A component without a data plate leaves Pyro no room for one."""
    model, x, _ = MODELS["normal"]()
    component: Any = model.sample
    guide = AutoDelta(component)
    with pytest.raises(ValueError, match=r"'num_particles_vectorized' at dim -1.*max_plate_nesting=1"):
        Trace_ELBO(num_particles=2, vectorize_particles=True)(component, guide)(x)
    elbo = Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)
    assert elbo(component, guide)(x).isfinite()
