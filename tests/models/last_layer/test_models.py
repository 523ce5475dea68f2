"""`NeuralLinear` and `GenerativeClassifier` as Pyro models, under everything that knows the
`Model` protocol.
"""

import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from conftest import Untouched
from last_layer_problems import PHI, Y, exact_posterior, golden, regression
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from statistical import assert_mean
from torch import Tensor, nn

from bayesnn import learned, likelihoods, predict, predictive, to_arviz
from bayesnn.guides import LastLayer, LastLayerELBO, LastLayerPosterior
from bayesnn.models import GenerativeClassifier, Model, NeuralLinear

Made = tuple[Any, Tensor, Tensor]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh())


def made(kind: str, name: str = "") -> Made:
    x, labels, real = torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0]), torch.randn(6, 2)
    normal = likelihoods.normal(learned(0.5))
    if kind == "normal":
        prior = dist.InverseGamma(1.0, 0.1)
        return (
            NeuralLinear(net(), 5, 2, normal, scale=learned(1.0), noise_variance_prior=prior, size=12, name=name),
            x,
            real,
        )
    if kind == "relative":
        return NeuralLinear(net(), 5, 2, normal, scale=3.0, relative=True, size=12, name=name), x, real
    if kind == "latent":
        half = dist.HalfCauchy(1.0)
        return NeuralLinear(net(), 5, 2, likelihoods.normal(half), scale=half, size=12, name=name), x, real
    if kind == "labels":
        return NeuralLinear(net(), 5, 2, likelihoods.categorical, bias=False, size=12, name=name), x, labels
    return GenerativeClassifier(net(), 5, 2, noise=learned(1.0), size=12, name=name), x, labels


KINDS = ("normal", "relative", "latent", "labels", "generative")
every_model = pytest.mark.parametrize("kind", KINDS)


def prior_draws(model: Any, count: int = 4) -> dict[str, Tensor]:
    held = [poutine.trace(model).get_trace(torch.zeros(1, 3)) for _ in range(count)]
    names = [name for name in held[0].stochastic_nodes if name not in ("data", "y")]
    return {name: torch.stack([one.nodes[name]["value"].detach() for one in held]) for name in names}


@every_model
def test_it_is_a_model(kind: str) -> None:
    model, x, y = made(kind, "a")
    held: Model = model
    (site,) = held.sites
    assert site in ("a.weight", "a.means")
    trace = poutine.trace(model).get_trace(x, y)
    assert trace.nodes[site]["value"].shape == held.sites[site]
    assert trace.nodes["a.y"]["scale"] == 2
    values = {site: trace.nodes[site]["value"]}
    outputs = trace.nodes["_RETURN"]["value"]
    torch.testing.assert_close(model.outputs(values, x), outputs.detach())
    torch.testing.assert_close(model.outputs_of_chunks(values, [x[:4], x[4:]]), outputs.detach())
    assert all(name.startswith("a.") for name, node in trace.nodes.items() if node["type"] in ("sample", "param"))


@every_model
def test_the_users_network_is_never_touched(kind: str, untouched: Untouched) -> None:
    own, x = net(), torch.randn(6, 3)
    with untouched(own):
        if kind == "generative":
            model: Any = GenerativeClassifier(own, 5, 2)
        else:
            model = NeuralLinear(own, 5, 2, likelihoods.categorical)
        assert not {id(p) for p in own.parameters()} & {id(p) for p in model.parameters()}
        loss = LastLayerELBO()(model, LastLayer(model))
        loss(x, torch.tensor([0, 1, 1, 0, 1, 0])).backward()
        torch.optim.SGD(loss.parameters(), 0.1).step()
    assert not torch.equal(model.features[0].weight, own[0].weight)
    torch.testing.assert_close(model.features(x), model.phi(x)[:, :5])


@every_model
@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(kind: str, parallel: bool) -> None:
    model, x, _ = made(kind)
    draws = prior_draws(model)
    for options in ({"posterior_samples": draws}, {"num_samples": 4}):
        sites = ("y", "_RETURN", model.site)
        result = Predictive(model, **options, parallel=parallel, return_sites=sites)(x)
        assert result["_RETURN"].numel() == 4 * 6 * 2
        assert result["y"].shape[:2] == (4, 6)
        if "posterior_samples" in options:
            expected = torch.stack([model.outputs({model.site: one}, x) for one in draws[model.site]])
            torch.testing.assert_close(result["_RETURN"].reshape(4, 6, 2), expected)


@every_model
def test_vectorised_particles(kind: str) -> None:
    model, x, y = made(kind)
    guide = AutoNormal(model)
    guide(x, y)
    vectorised = Trace_ELBO(num_particles=1000, vectorize_particles=True, max_plate_nesting=1)
    looped = torch.tensor([Trace_ELBO().loss(model, guide, x, y) for _ in range(200)])
    assert_mean(looped, torch.tensor([vectorised.loss(model, guide, x, y) for _ in range(2)]).mean())


@every_model
def test_predict_and_arviz(kind: str) -> None:
    model, x, y = made(kind)
    draws = prior_draws(model)
    outputs = predict(draws, x, model=model)
    expected = torch.stack([model.outputs({model.site: one}, x) for one in draws[model.site]])
    torch.testing.assert_close(outputs, expected)
    p = predictive(draws, x, model=model)
    assert p.log_prob(y).isfinite().all()
    data = to_arviz(draws, x, y, model=model)
    assert data["posterior"][model.site].shape == (1, 4, *model.sites[model.site])
    found = torch.tensor(data["log_likelihood"]["y"].values[0])
    if kind == "labels":
        torch.testing.assert_close(found, dist.Categorical(logits=outputs).log_prob(y))
    assert torch.tensor(data["sample_stats"]["lp"].values).isfinite().all()


def test_predict_agrees_with_the_closed_form() -> None:
    model, x, y = regression()
    guide = LastLayerPosterior(model).fit([(x, y)])
    outputs = guide.output_distribution(x)
    drawn = predict(guide, x, 2000, model=model)
    assert_mean(drawn, outputs.mean)
    assert_mean((drawn - outputs.mean).square(), outputs.variance)
    exact, mixed = guide.target_distribution(x).log_prob(y), predictive(guide, x, 2000, model=model).log_prob(y)
    torch.testing.assert_close(exact, mixed, rtol=0.1, atol=0.1)
    linearised = predictive(guide, x, 2000, model=model, linearised=True).log_prob(y)
    torch.testing.assert_close(linearised, exact, rtol=0.1, atol=0.1)


def test_nuts_finds_the_exact_posterior() -> None:
    model = golden()
    mcmc = MCMC(NUTS(model), num_samples=300, warmup_steps=60, disable_progbar=True)
    mcmc.run(PHI, Y)
    loc, covariance = exact_posterior(model, PHI, Y)
    drawn = mcmc.get_samples()["weight"][:, 0]
    assert ((drawn.mean(0) - loc[0]) / covariance[0].diagonal().sqrt()).abs().max() < 0.3
    torch.testing.assert_close(drawn.T.cov(), covariance[0], rtol=0.4, atol=0.02)


def test_nuts_runs_above_a_body() -> None:
    model, x, y = made("latent")
    mcmc = MCMC(NUTS(model), num_samples=5, warmup_steps=5, disable_progbar=True)
    mcmc.run(x, y)
    assert predict(mcmc, x, model=model).shape == (5, 6, 2)
    assert all(p.grad is None for p in model.parameters())


@every_model
@pytest.mark.usefixtures("parameter_mode")
def test_svi_trains_the_body_and_the_scales(kind: str) -> None:
    model, x, y = made(kind)
    guide: Callable[..., Any] = AutoNormal(model) if kind == "latent" else LastLayer(model)
    guide(x, y)
    elbo = Trace_ELBO() if kind == "latent" else LastLayerELBO()
    before = [p.detach().clone() for p in model.parameters()]
    SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo).step(x, y)
    assert len(before) == {"latent": 2, "labels": 2, "normal": 4}.get(kind, 3)
    assert all((p - b).abs().max() > 0 for p, b in zip(model.parameters(), before, strict=True))


def test_a_frozen_body_stays() -> None:
    own = net().requires_grad_(requires_grad=False)
    model = NeuralLinear(own, 5, 2, likelihoods.normal(learned(1.0)))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["likelihood.scale.log_value"]
    loss = LastLayerELBO()(model, LastLayer(model))
    loss(torch.randn(6, 3), torch.randn(6, 2)).backward()
    assert all(p.grad is None for p in model.features.parameters())


@every_model
def test_pickles(kind: str) -> None:
    model, x, _ = made(kind)
    other = pickle.loads(pickle.dumps(model))
    draws = {model.site: model.start()}
    torch.testing.assert_close(other.outputs(draws, x), model.outputs(draws, x))


def test_a_larger_model() -> None:
    model, x, _ = made("labels", "net")

    def larger(x: Tensor, y: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        mean = model.sample(x).sum(-1) + slope * x[:, 0]
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    guide = AutoNormal(larger)
    loss = Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)
    assert SVI(larger, guide, pyro.optim.Adam({"lr": 0.01}), loss).step(x, torch.randn(6)) > 0


def test_another_prior_scale() -> None:
    model, x, _ = made("normal")
    other = model.with_scale(2.0)
    assert other.matrix_prior().base_dist.scale[0, 0] == 2
    torch.testing.assert_close(other.phi(x), model.phi(x))
    assert other.features is not model.features
    assert (other.size, other.noise_variance_prior) == (12, model.noise_variance_prior)


def test_what_is_refused() -> None:
    normal = likelihoods.normal(0.5)
    with pytest.raises(ValueError, match=r"NeuralLinear: '1' \(Dropout\) is in training mode"):
        NeuralLinear(nn.Sequential(nn.Linear(3, 5), nn.Dropout()), 5, 1, normal)
    body = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).eval()
    model = NeuralLinear(body, 5, 1, normal)
    model.train()
    with pytest.raises(ValueError, match=r"NeuralLinear: '1' \(BatchNorm1d\) is in training mode"):
        model(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"features of shape \(2, 5\), but \[batch, 4\] was announced"):
        NeuralLinear(net(), 4, 1, normal)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="NeuralLinear: there is at least one feature and one output, not 5 and 0"):
        NeuralLinear(net(), 5, 0, normal)
    with pytest.raises(ValueError, match="NeuralLinear: size is the number of training examples"):
        NeuralLinear(net(), 5, 1, normal, size=0)
    with pytest.raises(ValueError, match="NeuralLinear: the name 'a/b' has a '/'"):
        NeuralLinear(net(), 5, 1, normal, name="a/b")
    with pytest.raises(ValueError, match="NeuralLinear: scale must be positive"):
        NeuralLinear(net(), 5, 1, normal, scale=-1.0)
    with pytest.raises(ValueError, match=r"a relative scale needs the noise of likelihoods\.normal"):
        NeuralLinear(net(), 5, 2, likelihoods.categorical, relative=True)
    with pytest.raises(ValueError, match="a noise_variance_prior is for a learned noise"):
        NeuralLinear(net(), 5, 1, normal, noise_variance_prior=dist.InverseGamma(1.0, 1.0))
    model, x, _ = made("labels")
    with pytest.raises(ValueError, match="NeuralLinear: no value of 'weight', which is random; there are bias"):
        model.outputs({"bias": torch.zeros(1)}, x)
    with pytest.raises(ValueError, match=r"NeuralLinear.network: the last layer has shape \(2, 5\), not \(2, 6\)"):
        model.network(torch.zeros(2, 6))
    with (
        pytest.raises(ValueError, match="the model was called inside the plate 'data' at dim -1"),
        pyro.plate("data", 6),
    ):
        model(x)
    with pytest.raises(ValueError, match=r"x is not finite at index \[0, 1\]"):
        model(torch.tensor([[0.0, float("nan"), 0.0]]))
