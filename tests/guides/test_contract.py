"""What every guide must do, over the table of all guides (`guide_cases.GUIDES`)."""

import copy
import io
import pickle
from contextlib import nullcontext
from typing import Any

import pyro
import pytest
import torch
from conftest import Untouched
from guide_cases import GUIDES, Problem
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import Tensor, nn

from bayesnn import guides

every_guide = pytest.mark.parametrize("kind", GUIDES)
our_guides = pytest.mark.parametrize("kind", [kind for kind, case in GUIDES.items() if case.ours])
global_guides = pytest.mark.parametrize("kind", [kind for kind, case in GUIDES.items() if case.ours and not case.local])
trained_guides = pytest.mark.parametrize("kind", [kind for kind, case in GUIDES.items() if case.trained])
both_modes = pytest.mark.usefixtures("parameter_mode")


def made(kind: str, name: str = "") -> Problem:
    return GUIDES[kind].make(name)


def drawn(guide: Any, *args: Any) -> dict[str, Tensor]:
    pyro.set_rng_seed(7)
    with torch.no_grad():
        trace = poutine.trace(guide).get_trace(*args)
    return {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}


def assert_same_draws(one: Any, other: Any, *args: Any) -> None:
    first, second = drawn(one, *args), drawn(other, *args)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0)


def owned(model: Any, guide: Any, *, some: bool) -> list[nn.Parameter]:
    """What a step of an ELBO must move: of an ensemble whose members are drawn,
    what all members share.
    """
    parameters = {**dict(guide.named_parameters()), **dict(model.named_parameters())}
    if not some:
        return [p for p in parameters.values() if p.requires_grad]
    return [p for name, p in model.named_parameters() if p.requires_grad and "layer.weight" in name]


def objectives(kind: str) -> list[tuple[Any, bool]]:
    """All ELBOs of a guide, and whether a step moves a random part of the parameters only."""
    case = GUIDES[kind]
    return [(Trace_ELBO(), case.some), *((elbo, False) for elbo in case.elbos)]


def test_every_guide_is_in_the_table() -> None:
    kinds = {type(case.make("").guide) for case in GUIDES.values()}
    exported = {value for value in vars(guides).values() if isinstance(value, type) and issubclass(value, nn.Module)}
    structures = {guides.Full, guides.Kronecker, guides.Diagonal, guides.LowRank, guides.Hessian}
    # a loss, although a module: its model's body is trained by it
    losses = {guides.LastLayerEvidence}
    assert exported - structures - losses <= kinds


@both_modes
@every_guide
def test_nothing_of_the_network_is_written(kind: str, untouched: Untouched) -> None:
    problem = made(kind)
    if problem.network is None:
        pytest.skip("the model owns what it trains")
    guide, model, x, y, net = problem
    with untouched(net):
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
    guide, model, x, y, _ = made(kind, "net")
    trace = poutine.trace(guide).get_trace(x, y)
    replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace(x, y)
    shapes = {site: (len(y), *shape) if site in model.local else shape for site, shape in model.sites.items()}
    for site, shape in shapes.items():
        assert site.startswith("net.")
        assert trace.nodes[site]["value"].shape == shape
        assert replayed.nodes[site]["value"] is trace.nodes[site]["value"]
    auxiliary = {n for n in trace.stochastic_nodes if trace.nodes[n]["infer"].get("is_auxiliary")}
    plates = {n for n in trace.stochastic_nodes if type(trace.nodes[n]["fn"]).__name__ == "_Subsample"}
    assert set(trace.stochastic_nodes) - auxiliary - plates >= set(shapes)
    latent = {n for n in replayed.stochastic_nodes if type(replayed.nodes[n]["fn"]).__name__ != "_Subsample"}
    assert set(trace.stochastic_nodes) - auxiliary - plates == latent


@global_guides
def test_the_arguments_do_not_matter(kind: str) -> None:
    guide, _, x, y, _ = made(kind)
    first, second = drawn(guide, x, y), drawn(guide)
    for name in first:
        assert torch.equal(first[name], second[name])


@every_guide
@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(kind: str, parallel: bool) -> None:
    guide, model, x, y, _ = made(kind)
    sites = (*model.sites, "y", "_RETURN")
    result = Predictive(model, guide=guide, num_samples=5, parallel=parallel, return_sites=sites)(x)
    assert result["y"].shape[:2] == (5, len(y))
    assert result["_RETURN"].numel() % (5 * len(y)) == 0
    assert result["_RETURN"].isfinite().all()
    for site, shape in model.sites.items():
        assert result[site].numel() == 5 * shape.numel() * (len(y) if site in model.local else 1)


@both_modes
@every_guide
def test_finite_elbos(kind: str) -> None:
    guide, model, x, y, net = made(kind)
    vectorised = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    for elbo, some in (*objectives(kind), (Trace_ELBO(num_particles=3), True), (vectorised, True)):
        loss = elbo(model, guide)
        value = loss(x, y)
        assert torch.as_tensor(value).shape == ()
        assert torch.as_tensor(value).isfinite()
        if net is not None:
            assert not {id(p) for p in net.parameters()} & {id(p) for p in loss.parameters()}
        if GUIDES[kind].trained and not (some and GUIDES[kind].some):
            parameters = [p for p in loss.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(value, parameters)
            assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)


@every_guide
def test_state_dict_round_trip(kind: str) -> None:
    guide, model, x, y, _ = made(kind)
    if GUIDES[kind].trained:
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter += 0.1
    file = io.BytesIO()
    torch.save(guide.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    if (again := GUIDES[kind].again) is not None:
        other = again(model)
    else:  # made anew for the same network
        other = copy.deepcopy(guide)
        for parameter in other.parameters():
            parameter.data.zero_()
    other.load_state_dict(state)
    assert_same_draws(guide, other, x, y)


@our_guides
def test_a_state_of_another_model_is_refused_before_anything_changes(kind: str) -> None:
    guide, case = made(kind).guide, GUIDES[kind]
    assert case.other is not None
    other = case.other()
    before = {name: copy.deepcopy(value) for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=f"{type(other).__name__}: this state belongs to another network"):
        other.load_state_dict(guide.state_dict())
    after = other.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items() if isinstance(value, Tensor))


@every_guide
def test_pickles_and_copies(kind: str) -> None:
    guide, _, x, y, _ = made(kind)
    assert_same_draws(guide, pickle.loads(pickle.dumps(guide)), x, y)
    assert_same_draws(guide, copy.deepcopy(guide), x, y)


@both_modes
@our_guides
def test_parameters_exist_at_construction(kind: str) -> None:
    guide, model, x, y, _ = made(kind)
    before = {name: id(parameter) for name, parameter in guide.named_parameters()}
    for elbo in (Trace_ELBO(), *GUIDES[kind].elbos):
        elbo(model, guide)(x, y)
    assert before == {name: id(parameter) for name, parameter in guide.named_parameters()}
    # plain BatchEnsemble: the model's alone
    assert bool(before) or not GUIDES[kind].trained or GUIDES[kind].some


@our_guides
def test_two_guides_share_nothing(kind: str) -> None:
    (one, _, x, y, _), (two, *_) = made(kind), made(kind)
    for guide in (one, two):
        guide(x, y)
    storages = [{t.data_ptr() for t in [*g.parameters(), *g.buffers()] if t.numel() > 1} for g in (one, two)]
    assert not storages[0] & storages[1]


@trained_guides
def test_a_torch_optimiser_trains_it(kind: str) -> None:
    guide, model, x, y, _ = made(kind)
    for elbo, some in objectives(kind):
        loss = elbo(model, guide)
        moving = owned(model, guide, some=some)
        before = [parameter.detach().clone() for parameter in moving]
        optimiser = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], 0.01)
        loss(x, y).backward()
        optimiser.step()
        assert all((p - b).abs().max() > 0 for p, b in zip(moving, before, strict=True))


@both_modes
@trained_guides
def test_svi_trains_it(kind: str) -> None:
    guide, model, x, y, _ = made(kind)
    for elbo, some in objectives(kind):
        moving = owned(model, guide, some=some)
        before = [parameter.detach().clone() for parameter in moving]
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
        assert torch.tensor([svi.step(x, y), svi.evaluate_loss(x, y)]).isfinite().all()
        assert all((p - b).abs().max() > 0 for p, b in zip(moving, before, strict=True))


@both_modes
@our_guides
def test_two_networks_in_one_model(kind: str) -> None:
    """Named models: neither sites nor parameters collide."""
    (one, first, x, y, _), (two, second, *_) = made(kind, "a"), made(kind, "b")

    def model(x: Any, y: Tensor | None = None) -> None:
        first(x, y)
        second(x, y)

    def guide(x: Any, y: Tensor | None = None) -> None:
        one(x, y)
        two(x, y)

    trace = poutine.trace(guide).get_trace(x, y)
    assert set(first.sites) | set(second.sites) <= set(trace.nodes)
    assert torch.tensor(Trace_ELBO().loss(model, guide, x, y)).isfinite()
    some = GUIDES[kind].some
    moving = [*owned(first, one, some=some), *owned(second, two, some=some)]
    before = [parameter.detach().clone() for parameter in moving]
    SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x, y)
    assert all((p - b).abs().max() > 0 for p, b in zip(moving, before, strict=True))


@our_guides
def test_closed_forms(kind: str, untouched: Untouched) -> None:
    guide, model, x, y, net = made(kind)
    closed = [name for name in ("output_distribution", "target_distribution") if hasattr(guide, name)]
    if kind.endswith("generative"):  # normal outputs are those of a linear last layer
        closed.remove("output_distribution")
    if kind.endswith("labels"):  # and y has a closed form where it is normal
        closed.remove("target_distribution")
    if not closed:
        pytest.skip("a guide may offer one")
    for name in closed:
        with untouched(net) if net is not None else nullcontext():
            outputs = getattr(guide, name)(x)
        assert outputs.batch_shape == (len(y),)
        assert not outputs.mean.requires_grad
        body = model.features if net is None else net
        body.append(nn.Dropout().train())
        position = len(body) - 1
        message = rf"{type(guide).__name__}(\.{name})?: '{position}' .Dropout. is in training mode"
        with pytest.raises(ValueError, match=message):
            getattr(guide, name)(x)
        del body[position]
