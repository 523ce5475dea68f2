"""`LastLayer` and its ELBO: golden values, exactness, bounds, batches."""

import math
from typing import Any

import pyro
import pytest
import torch
from last_layer_problems import (
    COVARIANCE,
    EVIDENCE,
    LOC,
    NOISE,
    PHI,
    POINT,
    Y,
    body,
    exact_posterior,
    given_features,
    golden,
    grid,
    log_evidence,
    put,
    regression,
)
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import Trace_ELBO
from statistical import assert_mean
from torch import Tensor, nn

from bayesnn import learned, likelihoods
from bayesnn.guides import LastLayer, LastLayerELBO, LastLayerMeanField, MeanField, MeanFieldELBO
from bayesnn.guides.expectations import jensen_bound as bound
from bayesnn.guides.expectations import second_order
from bayesnn.guides.last_layer.moments import row_kl
from bayesnn.likelihoods.expectations import normal_expectation
from bayesnn.models import NeuralLinear

LABEL = torch.tensor([0])
GUIDES = (LastLayer, LastLayerMeanField)


def classifier(**options: Any) -> LastLayer:
    """At the golden distribution over three classes' weights."""
    return put(LastLayer(given_features(2, 3, likelihoods.categorical, **options)), LOC, COVARIANCE)


def test_the_elbo_at_the_exact_posterior_is_the_log_evidence() -> None:
    model = golden()
    guide = put(LastLayer(model), *exact_posterior(model, PHI, Y))
    assert LastLayerELBO()(model, guide)(PHI, Y).item() == pytest.approx(-EVIDENCE, rel=1e-8)
    with torch.no_grad():
        guide.loc[0, 1] += 0.01
    assert LastLayerELBO().loss(model, guide, PHI, Y) > -EVIDENCE + 1e-5


def test_the_golden_predictive() -> None:
    model, x = golden(), torch.tensor([[1.0, 1.5]], dtype=torch.double)
    guide = put(LastLayer(model), *exact_posterior(model, PHI, Y))
    y = guide.target_distribution(x)
    assert y.mean.item() == pytest.approx(1.7632653061, rel=1e-9)
    assert y.variance.item() == pytest.approx(0.3858754028, rel=1e-9)
    outputs = guide.output_distribution(x)
    assert outputs.mean.item() == pytest.approx(1.7632653061, rel=1e-9)
    assert outputs.variance.item() == pytest.approx(0.3858754028 - 0.25, rel=1e-9)


@pytest.mark.parametrize("relative", [False, True])
def test_several_outputs_on_a_network(relative: bool) -> None:
    """Each output has its own noise in the term of its own covariance."""
    model, x, y = regression(relative=relative)
    guide = put(LastLayer(model), *exact_posterior(model, x, y))
    loss = LastLayerELBO().loss(model, guide, x, y)
    assert loss == pytest.approx(-log_evidence(model, x, y).item(), rel=1e-10)


def test_logits_and_bounds_at_the_golden_point() -> None:
    outputs = classifier().output_distribution(POINT)
    mean, variance = outputs.mean, outputs.variance + NOISE
    points, weights = grid(mean[0], variance[0])
    truth = (points.log_softmax(-1)[:, 0] * weights).sum().item()
    assert bound(mean, variance, LABEL).item() == pytest.approx(-1.4134317882, rel=1e-9)
    assert second_order(mean, variance, LABEL).item() == pytest.approx(-1.3185439345, rel=1e-9)
    assert truth == pytest.approx(-1.3146074277, rel=1e-8)
    probs = (points.softmax(-1) * weights.unsqueeze(-1)).sum(0)
    expected = torch.tensor([0.3119818100, 0.0950953895, 0.5929228003], dtype=torch.double)
    torch.testing.assert_close(probs, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("stand_in", [bound, second_order])
def test_the_elbo_of_labels(stand_in: Any) -> None:
    guide = classifier()
    outputs = guide.output_distribution(POINT)
    prior = dist.Normal(torch.zeros(3, 2).double(), 1.0)
    kl = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(LOC, COVARIANCE),
        torch.distributions.MultivariateNormal(torch.zeros(3, 2).double(), torch.eye(2).double()),
    ).sum()
    rows = guide.matrix_distribution().base_dist
    assert row_kl(rows, prior).item() == pytest.approx(kl.item(), rel=1e-12)
    expected = kl - stand_in(outputs.mean, outputs.variance, LABEL).sum()
    loss = LastLayerELBO(categorical=stand_in)(guide.model, guide)
    assert loss(POINT, LABEL).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_jensens_bound_lies_below_and_the_expansion_is_close_for_small_variances(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(1, 3, dtype=torch.double, generator=generator)
    variance = torch.rand(1, 3, dtype=torch.double, generator=generator)
    points, weights = grid(mean[0], variance[0], nodes=24)
    truth = (points.log_softmax(-1)[:, 0] * weights).sum()
    assert bound(mean, variance, LABEL) < truth
    points, weights = grid(mean[0], 1e-3 * variance[0], nodes=12)
    truth = (points.log_softmax(-1)[:, 0] * weights).sum()
    assert abs(second_order(mean, 1e-3 * variance, LABEL) - truth) < 1e-6
    exact = mean[0, 0] - mean.logsumexp(-1)
    assert bound(mean, 0 * variance, LABEL).item() == pytest.approx(exact.item())


def test_a_normal_expectation_is_that_of_the_density() -> None:
    mean, variance = torch.randn(3, 2).double(), torch.rand(3, 2).double()
    y, noise = torch.randn(3, 2).double(), torch.tensor([0.5, 2.0]).double()
    points, weights = grid(torch.zeros(3).double(), torch.ones(3).double(), nodes=5)
    z = mean + variance.sqrt() * points[:, :1].unsqueeze(-1)
    truth = torch.einsum("s,sbk->b", weights, dist.Normal(z, noise).log_prob(y))
    torch.testing.assert_close(normal_expectation(mean, variance, y, noise), truth)


def test_the_diagonal_guide_is_the_full_one_without_correlations() -> None:
    model, x, y = regression()
    diagonal = LastLayerMeanField(model, scale=0.3)
    with torch.no_grad():
        diagonal.log_scale += 0.2 * torch.randn_like(diagonal.log_scale)
    full = put(LastLayer(model), diagonal.loc, torch.diag_embed((2 * diagonal.log_scale).exp()))
    elbo = LastLayerELBO()
    assert elbo.loss(model, full, x, y) == pytest.approx(elbo.loss(model, diagonal, x, y), rel=1e-12)
    one, other = full.output_distribution(x), diagonal.output_distribution(x)
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.variance, other.variance)


def test_the_librarys_mean_field_guide_works_too() -> None:
    model, x, y = regression()
    guide = MeanField(model, x, y, scale=0.3)
    drawn = torch.tensor([MeanFieldELBO().loss(model, guide, x, y) for _ in range(300)])
    assert_mean(drawn, LastLayerELBO().loss(model, guide, x, y))


@pytest.mark.parametrize("kind", GUIDES)
@pytest.mark.parametrize("noise_variance_prior", [None, dist.InverseGamma(2.0, 0.1)])
def test_it_is_the_mean_of_pyros_elbo(kind: Any, noise_variance_prior: Any) -> None:
    model, x, y = regression(size=24, noise_variance_prior=noise_variance_prior)
    guide = kind(model, scale=0.2)
    with torch.no_grad():
        guide.loc.normal_()
    pyro.set_rng_seed(0)
    drawn = torch.tensor([Trace_ELBO().loss(model, guide, x, y) for _ in range(200)])
    assert_mean(drawn, LastLayerELBO().loss(model, guide, x, y))


@pytest.mark.parametrize(
    ("likelihood", "outputs", "target"),
    [
        (likelihoods.heteroscedastic, 4, torch.randn),
        (likelihoods.poisson, 2, lambda *shape: torch.randint(0, 4, shape)),
        (likelihoods.bernoulli, 2, lambda *shape: torch.randint(0, 2, shape)),
    ],
)
def test_every_expected_log_prob_of_a_likelihood_serves(likelihood: Any, outputs: int, target: Any) -> None:
    model = NeuralLinear(body(), 4, outputs, likelihood, size=24)
    x, y = torch.randn(12, 3, dtype=torch.double), target(12, 2).double()
    guide = LastLayer(model, scale=0.2)
    pyro.set_rng_seed(0)
    drawn = torch.tensor([Trace_ELBO().loss(model, guide, x, y) for _ in range(200)])
    assert_mean(drawn, LastLayerELBO().loss(model, guide, x, y))


def test_the_noise_prior_counts_once_for_all_data() -> None:
    (model, x, y), prior = regression(size=24), dist.InverseGamma(2.0, 0.1)
    other, *_ = regression(size=24, noise_variance_prior=prior)
    guide = LastLayer(model)
    difference = LastLayerELBO().loss(model, guide, x, y) - LastLayerELBO().loss(other, guide, x, y)
    assert difference == pytest.approx(prior.log_prob(model.noise_scale() ** 2).sum().item(), rel=1e-6)


def test_batches_are_unbiased() -> None:
    model, x, y = regression(size=12, noise_variance_prior=dist.InverseGamma(2.0, 0.1))
    guide, elbo = LastLayer(model), LastLayerELBO()
    parts = [elbo.loss(model, guide, x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)]
    assert sum(parts) / 3 == pytest.approx(elbo.loss(model, guide, x, y), rel=1e-12)


def test_the_noise_prior_is_the_inverse_wishart_with_its_constant() -> None:
    """dof logdet Sigma^-1 - M tr Sigma^-1 / 2 with dof = (nu + out + 1) / 2: differences between
    scales are equal.
    """
    nu, M, found, expected = 1.0, 0.3, [], []
    prior = dist.InverseGamma((nu + 2 - 1) / 2, M / 2)
    for scale in (torch.tensor([0.3, 0.7]), torch.tensor([0.1, 1.1])):
        noise = likelihoods.normal(learned(scale))
        model = NeuralLinear(nn.Identity(), 3, 2, noise, noise_variance_prior=prior).double()
        node = poutine.trace(model).get_trace(torch.zeros(4, 3).double(), torch.zeros(4, 2).double())
        found.append(node.nodes["y_scale_prior"]["fn"].log_prob(torch.zeros(0)).item())
        precision = model.noise_scale().detach() ** -2
        expected.append(((nu + 2 + 1) / 2 * precision.log().sum() - M / 2 * precision.sum()).item())
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], rel=1e-6)
    v = torch.linspace(1e-3, 60, 200_001).double()
    assert torch.trapezoid(prior.log_prob(v).exp(), v).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", GUIDES)
def test_handlers_around_the_loss_count(kind: Any) -> None:
    model, x, y = regression()
    guide = kind(model)
    whole = LastLayerELBO().loss(model, guide, x, y)
    with poutine.scale(scale=0.5):
        assert LastLayerELBO().loss(model, guide, x, y) == pytest.approx(0.5 * whole)
    with poutine.mask(mask=False):
        assert LastLayerELBO().loss(model, guide, x, y) == 0


@pytest.mark.parametrize("kind", GUIDES)
def test_training_finds_the_exact_posterior(kind: Any) -> None:
    """With a fixed body and scales: of the full guide all of it, of the
    diagonal one the mean and the precisions.
    """
    model = golden()
    guide, (loc, covariance) = kind(model), exact_posterior(model, PHI, Y)
    loss = LastLayerELBO()(model, guide)
    optimiser = torch.optim.LBFGS(guide.parameters(), lr=0.5, max_iter=200, tolerance_grad=1e-10, tolerance_change=0)

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(PHI, Y)
        value.backward()
        return value

    optimiser.step(closure)
    torch.testing.assert_close(guide.loc.detach(), loc, rtol=1e-5, atol=1e-6)
    if kind is LastLayer:
        assert loss(PHI, Y).item() == pytest.approx(-EVIDENCE, rel=1e-8)
        torch.testing.assert_close(
            guide.matrix_distribution().base_dist.covariance_matrix.detach(), covariance, rtol=1e-5, atol=1e-7
        )
    else:
        precision = torch.linalg.inv(covariance).diagonal(dim1=-2, dim2=-1)
        torch.testing.assert_close((-2 * guide.log_scale).exp().detach(), precision, rtol=1e-5, atol=1e-6)


def test_a_bias_is_a_feature_that_is_one() -> None:
    model, x, y = regression()
    assert torch.equal(model.phi(x)[:, -1], torch.ones(12).double())
    weight = torch.randn(2, 5).double()
    torch.testing.assert_close(model.network(weight)(x), model.outputs({"weight": weight}, x))
    without = NeuralLinear(body(), 4, 2, likelihoods.normal(1.0), bias=False)
    assert without.network(torch.zeros(2, 4).double())[1].bias is None
    assert math.isfinite(LastLayerELBO().loss(without, LastLayer(without), x, y))


def test_what_is_refused() -> None:
    model, x, y = regression()
    guide = LastLayer(model)
    with pytest.raises(TypeError, match="LastLayer: a NeuralLinear or a GenerativeClassifier is needed, not Linear"):
        LastLayer(nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="LastLayerMeanField: the initial standard deviation must be positive"):
        LastLayerMeanField(model, scale=0.0)
    with pytest.raises(TypeError, match="LastLayerELBO: the model must be a NeuralLinear"):
        LastLayerELBO().loss(poutine.scale(model, 2.0), guide, x, y)
    with pytest.raises(ValueError, match="LastLayerELBO: targets are needed"):
        LastLayerELBO().loss(model, guide, x)
    with pytest.raises(ValueError, match=r"y has shape .12,., but the likelihood of these outputs needs .12, 2."):
        LastLayerELBO().loss(model, guide, x, y[:, 0])
    with pytest.raises(ValueError, match="LastLayerELBO: the guide needs a normal distribution at the site 'weight'"):
        LastLayerELBO().loss(model, lambda *args: None, x, y)
    with pytest.raises(TypeError, match=r"LastLayer.target_distribution: it is closed for likelihoods.normal"):
        classifier().target_distribution(POINT)
    for likelihood, match in (
        (likelihoods.student_t(4.0), "the likelihood StudentT has no closed form"),
        (likelihoods.normal(dist.HalfCauchy(1.0)), "the site 'y_scale' is latent"),
    ):
        other = NeuralLinear(body(), 4, 2, likelihood)
        with pytest.raises(ValueError, match=f"LastLayerELBO: {match}"):
            LastLayerELBO().loss(other, LastLayer(other), x, y)
    hierarchical = NeuralLinear(body(), 4, 2, likelihoods.normal(1.0), scale=dist.HalfCauchy(1.0))
    with pytest.raises(ValueError, match="LastLayerELBO: the site 'weight_scale' is latent"):
        LastLayerELBO().loss(hierarchical, LastLayer(hierarchical), x, y)
