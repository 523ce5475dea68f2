"""Networks as components: two of them and a random intercept for each group, in
one Pyro model of the user's own.
"""

from typing import Any

import pyro
import pytest
import torch
from conftest import Untouched
from nets import mlp
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.optim import Adam  # type: ignore[attr-defined]
from torch import Tensor, nn
from tracing import trace_of

from bayesnn import BNN, learned, likelihoods, priors
from bayesnn.subset import everything, last_layer

GROUPS = 3


class Hierarchical(nn.Module):
    """y = f(a) + g(b) + intercept of the group + noise."""

    def __init__(self) -> None:
        super().__init__()
        first, second = mlp(3, 2, 1), mlp(2, 2, 1)
        noise = likelihoods.normal(1.0)  # not used: the components observe nothing
        self.first = BNN(first, everything(first), priors.normal(learned(1.0)), noise, name="first")
        self.second = BNN(
            second, last_layer(second), priors.hierarchical(scale=dist.HalfCauchy(1.0)), noise, name="second"
        )

    def forward(self, a: Tensor, b: Tensor, group: Tensor, y: Tensor | None = None) -> Tensor:
        f = self.first.sample(a) + self.second.sample(b)
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        with pyro.plate("groups", GROUPS):
            intercept = pyro.sample("intercept", dist.Normal(0.0, spread))
        mean = f.squeeze(-1) + intercept[..., group]
        with pyro.plate("data", len(a)):
            return pyro.sample("y", dist.Normal(mean, noise), obs=y)

    @property
    def nets(self) -> list[nn.Module]:
        return [self.first.net, self.second.net]


SITES = {
    "first.0.weight": (2, 3), "first.0.bias": (2,), "first.2.weight": (1, 2), "first.2.bias": (1,),
    "second.2.weight": (1, 2), "second.2.bias": (1,), "second.2.weight_scale": (), "second.2.bias_scale": (),
    "spread": (), "noise": (), "intercept": (GROUPS,),
}  # fmt: skip


def data(n: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.randn(n, 3), torch.randn(n, 2), torch.arange(n) % GROUPS, torch.randn(n)


@pytest.fixture
def model(untouched: Untouched) -> Any:
    """The model; its networks are compared at the end of the test."""
    made = Hierarchical()
    with untouched(made.nets[0]), untouched(made.nets[1]):
        yield made


def test_names_shapes_and_joint_density(model: Hierarchical) -> None:
    *inputs, y = data()
    trace = trace_of(model, *inputs, y)
    sites = [site for site in trace.stochastic_nodes if site not in ("groups", "data")]
    assert {site: trace.nodes[site]["value"].shape for site in sites} == SITES
    values = {site: trace.nodes[site]["value"] for site in sites}
    f = model.first.outputs(values, inputs[0]) + model.second.outputs(values, inputs[1])
    mean = f.squeeze(-1) + values["intercept"][inputs[2]]
    expected = dist.Normal(mean, values["noise"]).log_prob(y).sum()
    expected += dist.Normal(0.0, values["spread"]).log_prob(values["intercept"]).sum()
    expected += sum(dist.HalfNormal(1.0).log_prob(values[site]) for site in ("spread", "noise"))
    for site in model.first.sites:
        expected += dist.Normal(0.0, 1.0).log_prob(values[site]).sum()
    for site in model.second.sites:
        scale = values[site + "_scale"]
        expected += dist.Normal(0.0, scale).log_prob(values[site]).sum() + dist.HalfCauchy(1.0).log_prob(scale)
    torch.testing.assert_close(trace.log_prob_sum(), expected)


def test_svi_lowers_the_loss(model: Hierarchical, parameter_mode: bool) -> None:
    *inputs, y = data()
    loss = TraceMeanField_ELBO()(model, AutoNormal(model))
    loss(*inputs, y)
    assert not {id(p) for net in model.nets for p in net.parameters()} & {id(p) for p in loss.parameters()}
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        value = loss(*inputs, y)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert sum(losses[-10:]) < sum(losses[:10])
    assert model.first.prior.scale().item() != 1.0  # type: ignore[attr-defined]


def test_pyros_classical_interface(model: Hierarchical) -> None:
    *inputs, y = data()
    svi = SVI(model, AutoNormal(model), Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step(*inputs, y) for _ in range(3)]
    assert all(torch.tensor(losses).isfinite())


def test_vectorised_particles_equal_the_loop(model: Hierarchical) -> None:
    *inputs, y = data()
    guide = AutoDelta(model)
    loss = Trace_ELBO()(model, guide)(*inputs, y)
    together = Trace_ELBO(num_particles=3, vectorize_particles=True)(model, guide)(*inputs, y)
    torch.testing.assert_close(together, loss)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(model: Hierarchical, parallel: bool) -> None:
    *inputs, y = data()
    guide = AutoNormal(model)
    Trace_ELBO()(model, guide)(*inputs, y)
    sampled = Predictive(guide, num_samples=4)(*inputs, y)
    draws = {site: sampled[site].detach() for site in SITES}  # without the guide's auxiliary ones
    draws["noise"] = torch.full_like(draws["noise"], 1e-6)  # y is its mean
    found = Predictive(model, posterior_samples=draws, parallel=parallel)(*inputs)
    for i in range(4):
        # with an axis for plates
        one = {site: value[i].reshape(SITES[site]) for site, value in draws.items()}
        f = model.first.outputs(one, inputs[0]) + model.second.outputs(one, inputs[1])
        mean = f.squeeze(-1) + one["intercept"][inputs[2]]
        torch.testing.assert_close(found["y"][i], mean.detach(), atol=1e-4, rtol=0)


def test_nuts(model: Hierarchical) -> None:
    *inputs, y = data()
    mcmc = MCMC(NUTS(model, max_tree_depth=2), num_samples=3, warmup_steps=2, disable_progbar=True)
    mcmc.run(*inputs, y)
    samples = mcmc.get_samples()
    assert {site: value.shape[1:] for site, value in samples.items()} == SITES
    assert all(value.isfinite().all() for value in samples.values())


def test_two_networks_that_both_observe() -> None:
    """Names keep sites and plates of two complete models apart."""
    models = [Hierarchical().first, Hierarchical().second]
    a, b, _, y = data(4)

    def both() -> None:
        models[0](a, y.unsqueeze(1))
        models[1](b, y.unsqueeze(1))

    nodes = trace_of(both).nodes
    assert {"first.y", "second.y", "first.data", "second.data"} <= set(nodes)
    frames = {nodes[f"{name}.y"]["cond_indep_stack"][0].name for name in ("first", "second")}
    assert frames == {"first.data", "second.data"}


def test_a_plate_of_networks() -> None:
    """Inside a plate left of the data: one network for each group."""
    net = mlp()
    model = BNN(net, everything(net), priors.normal(), likelihoods.categorical)
    x, y = torch.randn(4, 3), torch.zeros(4, dtype=torch.long)

    def groups() -> Tensor:
        with pyro.plate("groups", 5, dim=-2):
            return model(x, y)

    trace = trace_of(groups)
    assert trace.nodes["_RETURN"]["value"].shape == (5, 4, 2)
    assert trace.nodes["y"]["log_prob"].shape == (5, 4)
    assert trace.nodes["0.weight"]["value"].shape == (5, 1, 4, 3)
    with (
        pytest.raises(ValueError, match="inside the plate 'groups' at dim -1; call it before that plate opens"),
        pyro.plate("groups", 5),
    ):
        model.sample(x)
