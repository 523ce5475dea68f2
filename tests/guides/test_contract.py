"""What every guide must do, in one table: a new guide is covered by adding one line to `GUIDES`.

Pyro's own guides stand in the table as witnesses that the contract is Pyro's.
"""

import copy
import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pyro
import pytest
import torch
from conftest import Untouched
from nets import mlp
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation, AutoNormal, init_to_mean
from torch import Tensor

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import (
    SWAG,
    Diagonal,
    FlipoutELBO,
    Kronecker,
    Laplace,
    LocalReparameterisationELBO,
    LowRank,
    MeanField,
    MeanFieldELBO,
    MomentPropagationELBO,
    MultiplicativeNoise,
    SharedVariance,
    VariationalLaplaceELBO,
)


def auto(kind: Any) -> Callable[[BNN, Tensor, Tensor], Any]:
    def build(model: BNN, x: Tensor, y: Tensor) -> Any:
        guide = kind(model)
        guide(x, y)  # Pyro's guides make their parameters at the first call
        return guide

    return build


def auto_laplace(model: BNN, x: Tensor, y: Tensor) -> Any:
    guide = AutoLaplaceApproximation(model, init_loc_fn=init_to_mean)  # where the Hessian is positive definite
    guide(x, y)
    return guide.laplace_approximation(x, y)


class Case(NamedTuple):
    build: Callable[[BNN, Tensor, Tensor], Any]
    elbos: tuple[Any, ...]
    trained: bool = True
    ours: bool = True
    options: dict[str, Any] = {}  # noqa: RUF012


def swag(model: BNN, x: Tensor, y: Tensor) -> SWAG:
    guide = SWAG(model, rank=3)
    for _ in range(4):
        guide.collect({site: value + 0.1 * torch.randn_like(value) for site, value in model.values().items()})
    return guide


def laplace(structure: Any) -> Case:
    options = {"structure": structure}
    return Case(lambda model, x, y: Laplace(model, **options).fit([(x, y)]), (), trained=False, options=options)


GUIDES = {
    "MeanField": Case(
        lambda model, x, y: MeanField(model),
        (TraceMeanField_ELBO(), MeanFieldELBO(), MeanFieldELBO(3), LocalReparameterisationELBO(), FlipoutELBO(2)),
    ),
    "SharedVariance": Case(lambda model, x, y: SharedVariance(model), (MeanFieldELBO(), VariationalLaplaceELBO())),
    "MultiplicativeNoise": Case(lambda model, x, y: MultiplicativeNoise(model), (MomentPropagationELBO(),)),
    "Laplace": Case(lambda model, x, y: Laplace(model).fit([(x, y)]), (), trained=False),
    "Kronecker": laplace(Kronecker),
    "Diagonal": laplace(Diagonal),
    "LowRank": laplace(partial(LowRank, rank=4)),
    "SWAG": Case(swag, (), trained=False, options={"rank": 3}),
    "AutoNormal": Case(auto(AutoNormal), (TraceMeanField_ELBO(), VariationalLaplaceELBO()), ours=False),
    "AutoDelta": Case(auto(AutoDelta), (MeanFieldELBO(),), ours=False),
    "AutoLaplace": Case(auto_laplace, (), trained=False, ours=False),
}
every_guide = pytest.mark.parametrize("kind", GUIDES)
our_guides = pytest.mark.parametrize("kind", [kind for kind, case in GUIDES.items() if case.ours])
trained_guides = pytest.mark.parametrize("kind", [kind for kind, case in GUIDES.items() if case.trained])
pytestmark = pytest.mark.usefixtures("parameter_mode")

Problem = tuple[BNN, Tensor, Tensor]


def problem(name: str = "") -> Problem:
    net, x = mlp(), torch.randn(6, 3)
    model = BNN(net, subset.named(net, "0.bias", "2"), priors.normal(0.5), likelihoods.categorical, size=12, name=name)
    return model, x, torch.tensor([0, 1, 1, 0, 1, 0])


def made(kind: str, name: str = "") -> tuple[Any, BNN, Tensor, Tensor]:
    model, x, y = problem(name)
    return GUIDES[kind].build(model, x, y), model, x, y


def drawn(guide: Any, *args: Tensor) -> dict[str, Tensor]:
    pyro.set_rng_seed(7)
    with torch.no_grad():
        trace = poutine.trace(guide).get_trace(*args)
    return {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}


def assert_same_draws(one: Any, other: Any, *args: Tensor) -> None:
    first, second = drawn(one, *args), drawn(other, *args)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0)


@every_guide
def test_nothing_of_the_network_is_written(kind: str, untouched: Untouched) -> None:
    model, x, y = problem()
    with untouched(model.net):
        guide = GUIDES[kind].build(model, x, y)
        guide(x, y)
        for elbo in (Trace_ELBO(), *GUIDES[kind].elbos):
            loss = elbo(model, guide)
            value = loss(x, y)
            if GUIDES[kind].trained:
                value.backward()
                torch.optim.Adam(loss.parameters(), 0.1).step()
        Predictive(model, guide=guide, num_samples=2)(x)


@every_guide
def test_every_site_of_the_model_is_drawn_and_replays(kind: str) -> None:
    guide, model, x, y = made(kind)
    trace = poutine.trace(guide).get_trace(x, y)
    replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace(x, y)
    for site, shape in model.sites.items():
        assert trace.nodes[site]["value"].shape == shape
        assert replayed.nodes[site]["value"] is trace.nodes[site]["value"]
    auxiliary = {n for n in trace.stochastic_nodes if trace.nodes[n]["infer"].get("is_auxiliary")}
    assert set(trace.stochastic_nodes) - auxiliary == set(model.sites)


@our_guides
def test_the_arguments_do_not_matter(kind: str) -> None:
    guide, _, x, y = made(kind)
    first, second = drawn(guide, x, y), drawn(guide)
    for name in first:
        assert torch.equal(first[name], second[name])


@every_guide
@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(kind: str, parallel: bool) -> None:
    guide, model, x, _ = made(kind)
    sites = (*model.sites, "y", "_RETURN")
    result = Predictive(model, guide=guide, num_samples=5, parallel=parallel, return_sites=sites)(x)
    assert result["y"].shape == (5, 6)
    assert result["_RETURN"].reshape(5, 6, 2).isfinite().all()
    for site, shape in model.sites.items():
        assert result[site].numel() == 5 * shape.numel()


@every_guide
def test_finite_elbos(kind: str) -> None:
    guide, model, x, y = made(kind)
    vectorised = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    for elbo in (Trace_ELBO(), Trace_ELBO(num_particles=3), vectorised, *GUIDES[kind].elbos):
        loss = elbo(model, guide)
        value = loss(x, y)
        assert torch.as_tensor(value).shape == ()
        assert torch.as_tensor(value).isfinite()
        own = {id(parameter) for parameter in model.net.parameters()}
        assert not own & {id(parameter) for parameter in loss.parameters()}
        if GUIDES[kind].trained:
            gradients = torch.autograd.grad(value, list(loss.parameters()))
            assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)


@every_guide
def test_state_dict_round_trip(kind: str) -> None:
    guide, model, x, y = made(kind)
    if GUIDES[kind].trained:
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter += 0.1
    file = io.BytesIO()
    torch.save(guide.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = GUIDES[kind].build(model, x, y) if not GUIDES[kind].ours else type(guide)(model, **GUIDES[kind].options)
    other.load_state_dict(state)
    assert_same_draws(guide, other, x, y)


@our_guides
def test_a_state_of_another_subset_is_refused_before_anything_changes(kind: str) -> None:
    guide, model, x, y = made(kind)
    other_model = BNN(model.net, subset.named(model.net, "0"), priors.normal(1.0), likelihoods.categorical, size=12)
    other = GUIDES[kind].build(other_model, x, y)
    before = copy.deepcopy(other)
    with pytest.raises(ValueError, match=f"{type(other).__name__}: this state belongs to another network"):
        other.load_state_dict(guide.state_dict())
    assert_same_draws(before, other, x, y)


@every_guide
def test_pickles_and_copies(kind: str) -> None:
    guide, _, x, y = made(kind)
    assert_same_draws(guide, pickle.loads(pickle.dumps(guide)), x, y)
    assert_same_draws(guide, copy.deepcopy(guide), x, y)


@our_guides
def test_parameters_exist_at_construction(kind: str) -> None:
    model, x, y = problem()
    guide = GUIDES[kind].build(model, x, y)
    before = {name: id(parameter) for name, parameter in guide.named_parameters()}
    for elbo in (Trace_ELBO(), *GUIDES[kind].elbos):
        elbo(model, guide)(x, y)
    assert before == {name: id(parameter) for name, parameter in guide.named_parameters()}
    assert bool(before) == GUIDES[kind].trained


@our_guides
def test_two_guides_share_nothing(kind: str) -> None:
    (one, _, x, y), (two, *_) = made(kind), made(kind)
    for guide in (one, two):
        guide(x, y)
    storages = [{t.data_ptr() for t in [*g.parameters(), *g.buffers()] if t.numel() > 1} for g in (one, two)]
    assert not storages[0] & storages[1]


@trained_guides
def test_a_torch_optimiser_trains_it(kind: str) -> None:
    guide, model, x, y = made(kind)
    for elbo in (Trace_ELBO(), *GUIDES[kind].elbos):
        loss = elbo(model, guide)
        before = [parameter.detach().clone() for parameter in loss.parameters()]
        optimiser = torch.optim.Adam(loss.parameters(), 0.01)
        loss(x, y).backward()
        optimiser.step()
        assert all((p - b).abs().max() > 0 for p, b in zip(loss.parameters(), before, strict=True))


@trained_guides
def test_svi_trains_it(kind: str) -> None:
    guide, model, x, y = made(kind)
    for elbo in (Trace_ELBO(), *GUIDES[kind].elbos):
        before = [parameter.detach().clone() for parameter in guide.parameters()]
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
        assert torch.tensor([svi.step(x, y), svi.evaluate_loss(x, y)]).isfinite().all()
        assert all((p - b).abs().max() > 0 for p, b in zip(guide.parameters(), before, strict=True))


@our_guides
def test_two_networks_in_one_model(kind: str) -> None:
    """Named models: neither sites nor parameters collide."""
    (one, first, x, y), (two, second, *_) = made(kind, "a"), made(kind, "b")

    def model(x: Tensor, y: Tensor | None = None) -> None:
        first(x, y)
        second(x, y)

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        one(x, y)
        two(x, y)

    trace = poutine.trace(guide).get_trace(x, y)
    assert set(first.sites) | set(second.sites) <= set(trace.nodes)
    assert torch.tensor(Trace_ELBO().loss(model, guide, x, y)).isfinite()
    before = [parameter.detach().clone() for parameter in [*one.parameters(), *two.parameters()]]
    SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x, y)
    after = [*one.parameters(), *two.parameters()]
    assert all((p - b).abs().max() > 0 for p, b in zip(after, before, strict=True))


@our_guides
def test_output_distribution(kind: str, untouched: Untouched) -> None:
    guide, model, x, _ = made(kind)
    if not hasattr(guide, "output_distribution"):
        pytest.skip("a guide may offer one")
    with untouched(model.net):
        outputs = guide.output_distribution(x)
    assert outputs.batch_shape == (6,)
    assert outputs.event_shape == (2,)
    assert not outputs.mean.requires_grad
    model.net.append(torch.nn.Dropout().train())
    with pytest.raises(
        ValueError, match=f"{type(guide).__name__}.output_distribution: '3' .Dropout. is in training mode"
    ):
        guide.output_distribution(x)
