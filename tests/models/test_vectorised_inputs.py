"""Vectorised: draws of weights meet the same draws of inputs, and of the sites
of priors and likelihoods.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam  # type: ignore[attr-defined]
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.priors import Prior

N, DRAWS = 5, 7


def named_bnn(net: nn.Module, prior: Prior | None = None) -> BNN:
    return BNN(net, subset.everything(net), prior or priors.normal(), likelihoods.normal(), name="f")


def latent(f: BNN, x: Tensor) -> Tensor:
    with pyro.plate("rows", N):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    return f.sample(z)


def imputed(f: BNN, x: Tensor) -> Tensor:
    with pyro.plate("rows", N):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    return f.sample(torch.where(x > 0, x, z))


def shared_factor(f: BNN, x: Tensor) -> Tensor:
    factor = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    return f.sample(x * factor)


def twice(f: BNN, x: Tensor) -> Tensor:
    with pyro.plate("rows", N):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    network = f.sample_network()
    return network(z) - network(x)


# where they are as many as examples, shapes tell less
@pytest.mark.parametrize("draws", [DRAWS, N])
@pytest.mark.parametrize("mean", [latent, imputed, shared_factor, twice])
def test_each_draw_of_the_inputs_has_its_own_weights(mean: Callable[[BNN, Tensor], Tensor], draws: int) -> None:
    f, x = named_bnn(mlp(3, 4, 1)), torch.randn(N, 3)

    def model() -> Tensor:
        outputs = mean(f, x)
        with pyro.plate("obs", N):
            pyro.sample("y", dist.Normal(outputs, 0.5).to_event(1))
        return outputs

    with pyro.plate("draws", draws, dim=-2):
        trace = poutine.trace(model).get_trace()
    together = trace.nodes["_RETURN"]["value"]
    sites = ["z", *f.sites]
    assert together.shape == (draws, N, 1)
    for s in range(draws):
        values = {name: trace.nodes[name]["value"][s] for name in sites}
        values = {k: v if k == "z" and mean is not shared_factor else v[0] for k, v in values.items()}
        torch.testing.assert_close(poutine.condition(model, data=values)(), together[s])
    guide = AutoNormal(model)
    assert Predictive(model, guide=guide, num_samples=draws, parallel=True)()["y"].shape == (draws, N, 1)


def test_a_batch_as_long_as_there_are_particles_is_data() -> None:
    """Images with no latent site before them are never taken for draws;
    `event_dim` says so where there is one.
    """
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    f, x = named_bnn(net), torch.randn(N, 2, 2)
    for before in (False, True):

        def model(before: bool = before) -> Tensor:
            if before:
                pyro.sample("noise", dist.HalfNormal(1.0))
            return f.sample(x, event_dim=2 if before else None)

        with pyro.plate("draws", N, dim=-2):
            trace = poutine.trace(model).get_trace()
        assert trace.nodes["_RETURN"]["value"].shape == (N, N, 1)
        for s in range(N):
            values = {name: trace.nodes[name]["value"][s, 0] for name in f.sites}
            torch.testing.assert_close(trace.nodes["_RETURN"]["value"][s], f.outputs(values, x))
    with pytest.raises(ValueError, match="event_dim=3"):
        f.sample(x, event_dim=3)


def test_an_enumerated_input() -> None:
    """The sum over a binary covariate, exactly: log sum_k p(k) p(y | k)."""
    f, y = named_bnn(nn.Linear(1, 1)), torch.randn(1)
    values = {"f.weight": torch.tensor([[0.8]]), "f.bias": torch.tensor([-0.3])}

    @config_enumerate  # type: ignore[untyped-decorator]
    def model() -> None:
        k = pyro.sample("k", dist.Bernoulli(0.3))
        mean = poutine.condition(f.sample_network, data=values)()(k.unsqueeze(-1), event_dim=1)
        with pyro.plate("obs", 1):
            pyro.sample("y", dist.Normal(mean.squeeze(-1), 1.0), obs=y)

    found = -TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None)
    of_y, of_k = dist.Normal(torch.tensor([-0.3, 0.5]), 1.0), torch.tensor([0.7, 0.3]).log()
    terms = of_y.log_prob(y) + of_k + sum(dist.Normal(0.0, 1.0).log_prob(value).sum() for value in values.values())
    assert found == pytest.approx(terms.logsumexp(0).item(), rel=1e-5)


def horseshoe(name: str, value: Tensor) -> Any:
    if name.endswith("bias"):
        return dist.Normal(0.0, 1.0)
    shared = pyro.sample(f"{name}_shared", dist.HalfCauchy(0.5))
    own = pyro.sample(f"{name}_own", dist.HalfCauchy(shared * torch.ones_like(value)).to_event(value.dim()))
    pyro.deterministic(f"{name}_largest", own.max())
    return dist.Normal(0.0, shared * own)


def per_output(name: str, value: Tensor) -> Any:
    scale = pyro.sample(f"{name}_own", dist.HalfNormal(torch.ones(len(value))).to_event(1))
    total = pyro.sample(f"{name}_shared", dist.HalfNormal(1.0))
    return dist.Normal(0.0, total * (scale.unsqueeze(-1) if value.dim() == 2 else scale))


def ard(name: str, value: Tensor) -> Any:
    if name.endswith("bias"):
        return dist.Normal(0.0, 1.0)
    shared = pyro.sample("shared", dist.HalfNormal(1.0))
    with pyro.plate("inputs", value.shape[-1]):
        scale = pyro.sample("ard", dist.HalfNormal(shared))
    return dist.Normal(0.0, scale)


class VectorNoise(nn.Module):
    """A latent noise scale for each output, times one for all."""

    def forward(self, outputs: Tensor) -> Any:
        shared = pyro.sample("y_shared", dist.HalfNormal(1.0))
        own = pyro.sample("y_own", dist.HalfNormal(torch.ones(outputs.shape[-1])).to_event(1))
        return dist.Normal(outputs, shared * own).to_event(1)


def sampled(trace: Any) -> dict[str, Tensor]:
    return {
        name: trace.nodes[name]["value"] for name in trace.stochastic_nodes if name not in ("data", "inputs", "draws")
    }


@pytest.mark.parametrize("draws", [8, 6, 4])  # 8 outputs, 6 inputs
@pytest.mark.parametrize("prior", [horseshoe, per_output, ard])
def test_priors_and_likelihoods_with_sites_of_their_own(prior: Prior, draws: int) -> None:
    """The joint density of all draws together is the sum of those of each by
    itself, a vector and a number mixed.
    """
    net, x, y = nn.Linear(6, 8), torch.randn(20, 6), torch.randn(20, 8)
    model = BNN(net, subset.everything(net), prior, VectorNoise())
    with pyro.plate("draws", draws, dim=-2):
        trace = poutine.trace(model).get_trace(x, y)
    values = sampled(trace)
    expected = 0.0
    for s in range(draws):
        one = {name: value[s] if name == "ard" else value[s, 0] for name, value in values.items()}
        expected += poutine.trace(poutine.condition(model, data=one)).get_trace(x, y).log_prob_sum().item()
        if prior is horseshoe:
            assert trace.nodes["weight_largest"]["value"][s, 0] == values["weight_own"][s, 0].max()
    assert trace.log_prob_sum().item() == pytest.approx(expected, rel=1e-5)
    guide = AutoNormal(model)
    guide(x, y)
    assert Predictive(model, guide=guide, num_samples=draws, parallel=True)(x)["y"].shape == (draws, 20, 8)
    elbo = Trace_ELBO(num_particles=draws, vectorize_particles=True, max_plate_nesting=1)
    assert SVI(model, guide, Adam({"lr": 0.01}), elbo).step(x, y) > 0


def test_the_plate_of_a_prior_is_not_that_of_the_data() -> None:
    """ARD's density, by hand; inside a real plate at dim -1 the network is refused as before."""
    net, x = nn.Linear(6, 8), torch.randn(20, 6)
    model = BNN(net, subset.everything(net), ard, likelihoods.normal(0.2))
    trace = poutine.trace(model.sample).get_trace(x)
    value = sampled(trace)
    expected = (
        dist.HalfNormal(1.0).log_prob(value["shared"]) + dist.HalfNormal(value["shared"]).log_prob(value["ard"]).sum()
    )
    expected += dist.Normal(0.0, value["ard"]).log_prob(value["weight"]).sum()
    expected += dist.Normal(0.0, 1.0).log_prob(value["bias"]).sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected)
    with pytest.raises(ValueError, match="inside the plate 'rows'"), pyro.plate("rows", 20):
        BNN(net, subset.everything(net), priors.normal(), likelihoods.normal(0.2)).sample(x)


def test_what_cannot_be_joined_is_refused() -> None:
    net, x = nn.Linear(2, 1), torch.zeros(3, 2)

    def warped(name: str, value: Tensor) -> Any:
        scale = pyro.sample(f"{name}_own", dist.HalfNormal(1.0))
        return dist.TransformedDistribution(dist.Normal(0.0, scale), [dist.transforms.ExpTransform()])

    def observing(name: str, value: Tensor) -> Any:
        pyro.sample(f"{name}_seen", dist.Normal(0.0, 1.0), obs=torch.zeros(()))
        return dist.Normal(0.0, 1.0)

    for prior, error, message in ((warped, TypeError, "cannot be joined"), (observing, ValueError, "observes a site")):
        model = BNN(net, subset.everything(net), prior, likelihoods.normal(0.2))
        poutine.trace(model.sample).get_trace(x)  # one draw works
        with pytest.raises(error, match=message), pyro.plate("draws", 4, dim=-2):
            model.sample(x)


def test_a_body_that_the_model_trains() -> None:
    """Of the BNN's own network it is refused; called before the BNN of the head it is trained."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    body, head = net[:2], net[2]
    x, y = torch.randn(30, 4), torch.randn(30)
    whole = BNN(net, subset.last_layer(net), priors.normal(), likelihoods.normal(), name="f")
    of_head = named_bnn(head)

    def model(*, split: bool) -> None:
        pyro.module("body", body)
        mean = (of_head.sample(body(x)) if split else whole.sample(x)).squeeze(-1)
        with pyro.plate("obs", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"the model trains 'body\$\$\$0.weight'.*head.sample"):
        poutine.trace(model).get_trace(split=False)
    before = body[0].weight.detach().clone()
    svi = SVI(model, AutoNormal(model), Adam({"lr": 0.03}), Trace_ELBO())
    for _ in range(3):
        svi.step(split=True)
    assert float((body[0].weight.detach() - before).abs().min()) > 1e-3
