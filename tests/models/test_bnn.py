"""`BNN` as a plain Pyro model: its joint density, its handlers, minibatches, pickling,
compilation, every network.
"""

import copy
import math
import pickle
from typing import Any

import pyro
import pytest
import torch
from conftest import Untouched
from models_table import MODELS, SIZE
from nets import NETS, TORCHVISION, mlp
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal, init_to_value
from torch import Tensor, nn
from tracing import trace_of

from bayesnn import BNN, learned, likelihoods, priors
from bayesnn.functional import batch_size
from bayesnn.models import Model
from bayesnn.subset import everything, last_layer, named

every_model = pytest.mark.parametrize("kind", MODELS)


def drawn(trace: Any) -> dict[str, Tensor]:
    return {site: trace.nodes[site]["value"].detach() for site in trace.stochastic_nodes if "data" not in site}


@every_model
def test_the_joint_density_is_prior_plus_scaled_likelihood(kind: str, untouched: Untouched) -> None:
    model, x, y = MODELS[kind]()
    with untouched(model.net):
        trace = trace_of(model, x, y)
    prefix = f"{model.name}." if model.name else ""
    values = drawn(trace)
    expected = torch.tensor(0.0)
    for site, value in values.items():
        assert trace.nodes[site]["scale"] == 1.0
        if site in model.sites:
            block = site.removeprefix(prefix)
            with poutine.condition(data={k.removeprefix(prefix): v for k, v in values.items()}):
                expected = expected + model.prior(block, model.values()[site]).log_prob(value).sum()
        else:  # a scale of the prior or the likelihood
            expected = expected + trace.nodes[site]["fn"].log_prob(value)
    with poutine.condition(data={k.removeprefix(prefix): v for k, v in values.items()}):
        likelihood = model.likelihood(model.outputs(values, x))
    expected = expected + SIZE / len(y) * likelihood.log_prob(y).sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected)
    assert trace.nodes[prefix + "y"]["is_observed"]


@every_model
def test_outputs_are_those_of_the_network_with_the_drawn_weights(kind: str, untouched: Untouched) -> None:
    model, x, y = MODELS[kind]()
    trace = trace_of(model, x, y)
    outputs = trace.nodes["_RETURN"]["value"]
    torch.testing.assert_close(model.outputs(drawn(trace), x), outputs)
    held = copy.deepcopy(model.net)
    prefix = f"{model.name}." if model.name else ""
    full = model.subset.put(
        dict(held.named_parameters()), {site.removeprefix(prefix): drawn(trace)[site] for site in model.sites}
    )
    with torch.no_grad():
        for name, parameter in held.named_parameters():
            parameter.copy_(full.get(name, parameter))
        plain = held(**x) if isinstance(x, dict) else held(x)
    torch.testing.assert_close(outputs.detach(), plain)


@every_model
def test_the_model_protocol(kind: str) -> None:
    model, x, _ = MODELS[kind]()
    # the type checker's part; isinstance would overlook sub-modules from Python 3.12 on
    typed: Model = model
    wanted = {*Model.__annotations__, *(name for name in vars(Model) if not name.startswith("_"))}
    assert all(hasattr(typed, name) for name in wanted)
    trace = trace_of(model.sample, x)
    assert not trace.observation_nodes
    assert set(model.sites) <= set(trace.stochastic_nodes)
    assert {site: trace.nodes[site]["fn"].event_shape for site in model.sites} == model.sites
    assert {site: value.shape for site, value in model.values().items()} == model.sites


@every_model
def test_condition_replay_block_and_scale(kind: str, untouched: Untouched) -> None:
    model, x, y = MODELS[kind]()
    with untouched(model.net):
        first = trace_of(model, x, y)
        replayed = trace_of(poutine.replay(model, trace=first), x, y)
        conditioned = trace_of(poutine.condition(model, data=drawn(first)), x, y)
        hidden = poutine.trace(poutine.block(model, hide=list(model.sites))).get_trace(x, y)
        scaled = trace_of(poutine.scale(poutine.replay(model, trace=first), scale=3.0), x, y)
    assert torch.equal(replayed.log_prob_sum(), first.log_prob_sum())
    assert torch.equal(conditioned.log_prob_sum(), first.log_prob_sum())
    assert not [site for site in conditioned.stochastic_nodes if site in model.sites]
    assert not set(hidden.nodes) & set(model.sites)
    torch.testing.assert_close(scaled.log_prob_sum(), 3 * first.log_prob_sum())


@every_model
def test_without_targets_y_is_latent_and_sample_has_none(kind: str) -> None:
    model, x, y = MODELS[kind]()
    prefix = f"{model.name}." if model.name else ""
    trace = trace_of(model, x)
    assert not trace.nodes[prefix + "y"]["is_observed"]
    assert trace.nodes[prefix + "y"]["value"].shape == y.shape
    assert prefix + "y" not in poutine.trace(model.sample).get_trace(x).nodes


def test_minibatches_are_scaled_exactly() -> None:
    """The mean over equal batches is the log likelihood of all data, and the
    prior is never scaled.
    """
    net = mlp()
    x, y = torch.randn(12, 3), torch.randint(0, 2, (12,))
    model = BNN(net, everything(net), priors.normal(), likelihoods.categorical, size=12)
    values = {name: torch.randn_like(value) for name, value in model.values().items()}
    pinned = poutine.condition(model, data=values)
    whole = trace_of(pinned, x, y).nodes
    parts = [trace_of(pinned, x[i : i + 3], y[i : i + 3]).nodes for i in range(0, 12, 3)]
    assert [part["y"]["scale"] for part in parts] == [4.0] * 4
    mean = torch.stack([part["y"]["log_prob_sum"] for part in parts]).mean()
    torch.testing.assert_close(mean, whole["y"]["log_prob_sum"])
    for site in model.sites:
        assert torch.equal(parts[0][site]["log_prob_sum"], whole[site]["log_prob_sum"])
    unscaled = poutine.condition(BNN(net, everything(net), priors.normal(), likelihoods.categorical), data=values)
    torch.testing.assert_close(trace_of(unscaled, x, y).log_prob_sum(), trace_of(pinned, x, y).log_prob_sum())


@every_model
def test_pickling(kind: str) -> None:
    model, x, y = MODELS[kind]()
    again = pickle.loads(pickle.dumps(model))
    first = trace_of(model, x, y)
    assert torch.equal(trace_of(poutine.replay(again, trace=first), x, y).log_prob_sum(), first.log_prob_sum())
    assert str(again) == str(model)


@pytest.mark.parametrize("kind", ["categorical", "latent variance, some entries", "convolutional, last layer", "dict"])
def test_outputs_compile_to_one_graph(kind: str) -> None:
    """Backend "aot_eager": the whole of Dynamo and AOTAutograd, without waiting
    for a C++ compiler.
    """
    model, x, _ = MODELS[kind]()
    torch.compiler.reset()
    compiled = torch.compile(model.outputs, fullgraph=True, backend="aot_eager")
    values = {site: value.requires_grad_() for site, value in model.values().items()}
    expected = model.outputs(values, x)
    found = compiled(values, x)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(o.square().sum(), list(values.values())) for o in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("kind", [*NETS, *TORCHVISION])
def test_every_network(kind: str, untouched: Untouched) -> None:
    """A trace, one gradient of the ELBO, and draws through vmap that equal the loop."""
    net, x = (NETS | TORCHVISION)[kind]()
    names = list(everything(net).names)
    # few weights of the large ones
    subset = everything(net) if kind in NETS else named(net, names[0], names[-1])
    model = BNN(net, subset, priors.normal(0.3), likelihoods.categorical, size=50)
    y = torch.zeros(batch_size(x), dtype=torch.long)
    with untouched(net):
        trace = trace_of(model, x, y)
        assert math.isfinite(trace.log_prob_sum())
        loss = Trace_ELBO()(model, AutoNormal(model))
        loss(x, y).backward()
        gradients = [parameter.grad for parameter in loss.parameters()]
        assert all(g is not None and g.isfinite().all() and (g != 0).any() for g in gradients)
        with pyro.plate("draws", 3, dim=-2):
            values = {site: 0.3 * torch.randn(3, 1, *shape) for site, shape in model.sites.items()}
            together = poutine.condition(model.sample, data=values)(x)
        each = [model.outputs({site: value[i, 0] for site, value in values.items()}, x) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(each), rtol=1e-4, atol=1e-5)


def test_parameters_are_the_generative_ones_alone() -> None:
    net = mlp()
    model = BNN(net, everything(net), priors.normal(learned(1.0)), likelihoods.normal(learned(0.1)))
    assert [name for name, _ in model.named_parameters()] == ["prior.scale.log_value", "likelihood.scale.log_value"]
    assert not list(model.buffers())
    assert model.net is net


def test_the_networks_values_start_guides_and_are_clones(untouched: Untouched) -> None:
    net = mlp()
    model = BNN(net, everything(net), priors.normal(), likelihoods.categorical)
    with untouched(net):
        guide = AutoDelta(model, init_loc_fn=init_to_value(values=model.values()))
        loss = Trace_ELBO()(model, guide)
        x, y = torch.randn(4, 3), torch.zeros(4, dtype=torch.long)
        loss(x, y)
        torch.testing.assert_close(model.outputs(guide.median(), x), net(x).detach())
        optimiser = torch.optim.SGD(loss.parameters(), lr=1.0)
        loss(x, y).backward()
        optimiser.step()
    assert not torch.equal(model.outputs(guide.median(), x), net(x))


def test_double_precision_networks() -> None:
    net = mlp().double()
    model = BNN(net, everything(net), priors.normal(learned(0.5)), likelihoods.normal(learned(0.1)))
    assert all(parameter.dtype == torch.double for parameter in model.parameters())
    outputs = model(torch.zeros(2, 3).double(), torch.zeros(2, 2).double())
    assert outputs.dtype == torch.double


def test_another_prior() -> None:
    model, _, _ = MODELS["user's own"]()
    other = model.with_prior(priors.normal(3.0))
    assert (other.net, other.subset, other.likelihood) == (model.net, model.subset, model.likelihood)
    assert (other.size, other.name) == (model.size, model.name)
    assert other.prior is not model.prior


def test_the_printed_table() -> None:
    net = mlp()
    model = BNN(net, last_layer(net), priors.normal(0.5), likelihoods.normal(learned(0.1)), size=100, name="net")
    assert str(model).splitlines() == [
        "BNN of Sequential, likelihood Normal(scale=learned, now 0.1), size 100",
        "block         shape   random  prior",
        "-" * 54,
        "net.2.weight  (2, 4)       8  Normal(loc=0, scale=0.5)",
        "net.2.bias    (2,)         2  Normal(loc=0, scale=0.5)",
        "all blocks                10",
    ]


def test_a_module_of_networks_is_one_too() -> None:
    """Inside a larger `nn.Module` only the generative parameters are found."""
    net = mlp()
    larger = nn.ModuleList([BNN(net, everything(net), priors.normal(learned(1.0)), likelihoods.categorical)])
    assert len(list(larger.parameters())) == 1
