"""`predictive` and `linearised`: from a posterior to the distribution of y."""

import math
from typing import Any

import pyro
import pytest
import torch
from conftest import Untouched
from laplace_problems import golden, mode
from nets import mlp
from pyro import distributions as dist
from pyro.infer import Predictive
from pyro.infer.autoguide import AutoNormal
from statistical import assert_mean
from torch import Tensor

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import Laplace, MeanField
from bayesnn.predict import PredictiveDistribution, draw, linearised, predict, predictive

X = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
Y = torch.randn(7, 1, generator=torch.Generator().manual_seed(1))

LIKELIHOODS = {
    "normal": likelihoods.normal(0.3),
    "learned": likelihoods.normal(learned(0.3)),
    "heteroscedastic": likelihoods.heteroscedastic,
    "student-t": likelihoods.student_t(4.0, 0.5),
    "categorical": likelihoods.categorical,
    "bernoulli": likelihoods.bernoulli,
    "poisson": likelihoods.poisson,
    "negative binomial": likelihoods.negative_binomial(2.0),
}


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_the_likelihood_of_every_draw_mixed(kind: str, untouched: Untouched) -> None:
    net = mlp()
    model = BNN(net, subset.everything(net), priors.normal(1.0), LIKELIHOODS[kind])
    held = draw(MeanField(model, scale=0.2), 5)
    with untouched(net):
        p = predictive(held, X, 5, model=model, chunk=3)
    assert p.draws == 5
    assert p.batch_shape == (7,)
    y = p.sample()
    each = torch.stack([LIKELIHOODS[kind](one).log_prob(y) for one in predict(held, X, 5, model=model)])
    torch.testing.assert_close(p.log_prob(y), each.logsumexp(0) - math.log(5))
    assert not p.log_prob(y).requires_grad


def latent(name: str = "") -> tuple[BNN, dict[str, Tensor]]:
    """A network with a latent noise scale for each of its two outputs, and
    three draws that are told apart.
    """
    net = mlp()
    scale = dist.LogNormal(torch.zeros(2), 1.0)
    model = BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.normal(scale), name=name)
    prefix = name + "." if name else ""
    held = {site: torch.randn(3, *shape) for site, shape in model.sites.items()}
    return model, {**held, prefix + "y_scale": torch.tensor([[0.1, 0.2], [1.0, 2.0], [10.0, 20.0]])}


@pytest.mark.parametrize("name", ["", "net"])
@pytest.mark.parametrize("plates", [0, 1, 2])
def test_latent_scales_go_with_the_weights_of_their_draw(name: str, plates: int) -> None:
    """Also with the axes of size 1 that Pyro leaves for plates."""
    model, held = latent(name)
    widened = {site: value.reshape(3, *(1,) * plates, *value.shape[1:]) for site, value in held.items()}
    p = predictive(widened, X, 3, model=model)
    components = p.components.base_dist
    torch.testing.assert_close(components.loc, predict(held, X, 3, model=model))
    scale = next(value for site, value in held.items() if site.endswith("y_scale"))
    torch.testing.assert_close(components.scale.expand(3, 7, 2), scale.unsqueeze(1).expand(3, 7, 2))


@pytest.mark.parametrize("parallel", [False, True])
def test_what_pyros_predictive_returns_with_a_latent_scale(parallel: bool) -> None:
    net = mlp(outputs=1)
    prior = priors.hierarchical(scale=dist.HalfCauchy(1.0))
    model = BNN(net, subset.last_layer(net), prior, likelihoods.normal(dist.LogNormal(0.0, 1.0)))
    guide = MeanField(model, X, Y)
    sites = (*model.sites, "y_scale", "2.bias_scale", "_RETURN")
    held = Predictive(model, guide=guide, num_samples=3, parallel=parallel, return_sites=sites)(X)
    p = predictive(held, X, 3, model=model)
    torch.testing.assert_close(p.components.base_dist.loc, held["_RETURN"].reshape(3, 7, 1))
    torch.testing.assert_close(p.components.base_dist.scale[:, 0].flatten(), held["y_scale"].flatten())


def test_a_latent_scale_from_a_guide() -> None:
    net = mlp(outputs=1)
    model = BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.normal(dist.LogNormal(0.0, 1.0)))
    guide = MeanField(model, X, Y, init={"y_scale": torch.tensor(0.3)}, scale=0.1)
    for linear in (False, True):
        components = predictive(guide, X, 400, model=model, linearised=linear).components.base_dist
        assert components.scale.shape[0] == 400
        assert_mean(components.scale[:, 0, 0].log(), math.log(0.3))


def test_a_latent_scale_that_the_draws_lack_never_comes_from_the_prior() -> None:
    model, held = latent()
    weights = {site: value for site, value in held.items() if site != "y_scale"}
    with pytest.raises(ValueError, match="the latent site 'y_scale', which the draws lack"):
        predictive(weights, X, 3, model=model)
    with pytest.raises(ValueError, match="the latent site 'y_scale', which the draws lack"):
        predictive(MeanField(model), X, 3, model=model)
    with pytest.raises(ValueError, match="the latent site 'y_scale', which the draws lack"):
        predictive(MeanField(model), X, 3, model=model, linearised=True)


def test_latent_scales_of_another_model() -> None:
    model, held = latent()
    with pytest.raises(ValueError, match=r"'y_scale' has shape \(3,\), but the likelihood's site has \(2,\)"):
        predictive({**held, "y_scale": torch.ones(3, 3)}, X, 3, model=model)


def test_linearised_is_the_closed_form_of_a_linear_model() -> None:
    """The golden predictive: mean 1.7632653061, variance 0.3858754028 with the noise."""
    model, x, y = golden()
    guide = Laplace(model, mode(model, x, y)).fit([(x, y)])
    new = torch.tensor([[1.0, 1.5], [-1.0, 0.3]], dtype=torch.double)
    for linear in (True, False):  # the model is linear: both are exact
        p = predictive(guide, new, 2_000, model=model, linearised=linear)
        outputs = p.components.base_dist.loc[:, 0, 0]
        assert_mean(outputs, 1.7632653061)
        assert_mean((outputs - 1.7632653061) ** 2, 0.3858754028 - 0.25)
        assert p.aleatoric_variance.flatten().tolist() == [0.25, 0.25]
        draws = p.sample((5_000,))[:, 0, 0]
        assert_mean(draws, p.mean[0, 0])
        assert_mean((draws - p.mean[0, 0]) ** 2, p.variance[0, 0])


def test_linearised_draws_have_the_guides_output_distribution() -> None:
    net = mlp()
    model = BNN(net, subset.everything(net), priors.normal(0.5), likelihoods.categorical)
    guide = Laplace(model).fit([(X, torch.tensor([0, 1, 1, 0, 1, 0, 1]))])
    outputs = linearised(guide, X, 5_000)
    expected = guide.output_distribution(X)
    assert outputs.shape == (5_000, 7, 2)
    assert not outputs.requires_grad
    assert_mean(outputs, expected.mean)
    centred = outputs - expected.mean
    assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), expected.covariance_matrix)


def test_linearised_draws_no_weights_where_nothing_is_latent(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = golden()
    guide = Laplace(model).fit([(x, y)])
    monkeypatch.setattr(Laplace, "forward", None)
    assert predictive(guide, x, 10, model=model, linearised=True).draws == 10


@pytest.mark.parametrize("posterior", [AutoNormal, lambda model: draw(MeanField(model), 3)])
def test_linearised_needs_a_closed_form(posterior: Any) -> None:
    model, x, _ = golden()
    with pytest.raises(TypeError, match=r"has no closed form of its outputs, output_distribution\(x\); use a guide"):
        linearised(posterior(model), x)


def test_it_is_a_distribution_of_pyros() -> None:
    model, held = latent()
    p = predictive(held, X, 3, model=model)
    assert isinstance(p, PredictiveDistribution)
    with pyro.plate("data", 7), pyro.poutine.trace() as traced:
        pyro.sample("y", p, obs=torch.zeros(7, 2))
    traced.trace.compute_log_prob()
    torch.testing.assert_close(traced.trace.nodes["y"]["log_prob"], p.log_prob(torch.zeros(7, 2)))


def test_a_progress_bar(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesnn.functional.progress.DELAY", 0.0)  # short calls print nothing
    net = mlp()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical)
    guide = MeanField(model)
    predictive(guide, X, 3, model=model, progress=True)
    assert "3/3" in capsys.readouterr().err
    predictive(guide, X, 3, model=model, progress=False)
    assert not capsys.readouterr().err
