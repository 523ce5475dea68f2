"""`probit` and `bridge`: golden values, limits, bounds; what all closed-form
predictives refuse.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from output_distributions import normal, random_outputs
from pyro import distributions as dist
from statistical import assert_mean
from torch import Tensor

from bayesnn import BNN, likelihoods, metrics, priors, subset
from bayesnn.guides import Laplace
from bayesnn.likelihoods.bridge import log_concentration
from bayesnn.predict import PredictiveDistribution, bridge, gaussian, predictive, probit

MEAN = torch.tensor([[2.0, 0.5, -1.0]], dtype=torch.double)
COVARIANCE = torch.tensor([[[1.0, 0.2, 0.0], [0.2, 0.5, 0.1], [0.0, 0.1, 2.0]]], dtype=torch.double)
OUTPUTS = dist.MultivariateNormal(MEAN, COVARIANCE)
TRUTH = torch.tensor([0.7148, 0.1998, 0.0854], dtype=torch.double)
BINARY = dist.Normal(torch.tensor([[1.5]], dtype=torch.double), math.sqrt(2.0)).to_event(1)
BINARY_TRUTH = 0.7512937461

categorical, bernoulli = likelihoods.categorical, likelihoods.bernoulli
normalised_bridge = partial(bridge, normalised=True)
LINKS: dict[str, Callable[..., PredictiveDistribution]] = {
    "probit": probit,
    "bridge": bridge,
    "normalised": normalised_bridge,
}
GOLDEN = {
    "probit": [0.7262336123, 0.2106651260, 0.0631012618],
    "bridge": [0.5929683133, 0.3584891248, 0.0485425620],
    "normalised": [0.7360640234, 0.2449549428, 0.0189810339],
}


def close(actual: Tensor, expected: Any) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.double), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", LINKS)
def test_golden_probabilities(kind: str) -> None:
    p = LINKS[kind](categorical, OUTPUTS)
    assert isinstance(p, PredictiveDistribution)
    assert p.probs.shape == (1, 3)
    close(p.probs[0], GOLDEN[kind])


def test_golden_concentrations() -> None:
    close(
        log_concentration(MEAN, COVARIANCE, 1e-16, normalised=False).exp()[0],
        [6.1293579218, 3.7056080530, 0.5017717306],
    )
    close(
        log_concentration(MEAN, COVARIANCE, 1e-16, normalised=True).exp()[0],
        [9.9101789718, 3.2980111044, 0.2555558165],
    )


def test_golden_binary_probit() -> None:
    p = probit(bernoulli, BINARY)
    close(p.probs, [[[1 - 0.7544700388, 0.7544700388]]])
    close(p.log_prob(torch.ones(1, 1, dtype=torch.double)), [math.log(0.7544700388)])


def test_the_truth_is_between_the_links_and_the_draws() -> None:
    """Quadrature, draws, and how far the probit is from both."""
    nodes, weights = quadrature(50)
    close((weights * (1.5 + math.sqrt(2.0) * nodes).sigmoid()).sum(), BINARY_TRUTH)
    root, grid = torch.linalg.cholesky(COVARIANCE[0]), torch.cartesian_prod(nodes, nodes, nodes)
    weight = torch.cartesian_prod(weights, weights, weights).prod(-1, keepdim=True)
    truth = (weight * (MEAN + grid @ root.T).softmax(-1)).sum(0)
    torch.testing.assert_close(truth, TRUTH, rtol=0, atol=5e-5)

    torch.manual_seed(0)
    draws = PredictiveDistribution(categorical(OUTPUTS.sample((20_000,))))
    assert_mean(draws.component_probs[:, 0], truth)
    assert_mean(PredictiveDistribution(bernoulli(BINARY.sample((20_000,)))).component_probs[:, 0, 0, 1], BINARY_TRUTH)
    assert (probit(categorical, OUTPUTS).probs[0] - truth).abs().max() < 0.025
    assert (probit(bernoulli, BINARY).probs[0, 0, 1] - BINARY_TRUTH).abs() < 0.004


def quadrature(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Hermite for a standard normal variable: the eigenvalues of
    its Jacobi matrix.
    """
    beside = torch.arange(1, count, dtype=torch.double).sqrt()
    nodes, vectors = torch.linalg.eigh(beside.diag(1) + beside.diag(-1))
    return nodes, vectors[0] ** 2


def test_probit_without_variance_is_the_network() -> None:
    mean, covariance = random_outputs(6, 4)
    for scale, bound in ((1e-8, 1e-6), (0.0, 1e-15)):
        p = probit(categorical, normal(mean, scale * covariance)).probs
        torch.testing.assert_close(p, mean.softmax(-1), rtol=0, atol=bound)
    none = dist.Normal(mean, torch.zeros_like(mean), validate_args=False).to_event(1)
    torch.testing.assert_close(probit(bernoulli, none).probs[..., 1], mean.sigmoid())


def test_probit_with_endless_variance_knows_nothing() -> None:
    mean, covariance = random_outputs(6, 4)
    p = probit(categorical, normal(mean, 1e12 * covariance)).probs
    torch.testing.assert_close(p, torch.full_like(p, 0.25), rtol=0, atol=1e-4)


def test_confidence_far_away_is_bounded_by_the_smallest_variance_of_the_weights() -> None:
    """|z| <= |mu| / sqrt(pi/8 lambda_min) for all features: Kristiadi, Hein, Hennig (2020)."""
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn(5, dtype=torch.double, generator=generator)
    half = torch.randn(5, 5, dtype=torch.double, generator=generator)
    sigma = half @ half.T + 0.1 * torch.eye(5, dtype=torch.double)
    features = torch.randn(1_000, 5, dtype=torch.double, generator=generator) * torch.logspace(-2, 6, 1_000).unsqueeze(
        -1
    )

    def z(features: Tensor, sigma: Tensor) -> Tensor:
        deviation = (features @ sigma * features).sum(-1, keepdim=True).sqrt()
        outputs = dist.Normal((features @ mu).unsqueeze(-1), deviation).to_event(1)
        return probit(bernoulli, outputs).components.base_dist.logits.abs().flatten()

    bound = mu.norm() / (math.pi / 8 * torch.linalg.eigvalsh(sigma)[0]).sqrt()
    assert (z(features, sigma) <= bound).all()
    tight = z(1e9 * mu.unsqueeze(0), 0.3 * torch.eye(5, dtype=torch.double))
    torch.testing.assert_close(tight[0], mu.norm() / math.sqrt(math.pi / 8 * 0.3))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_bridge_returns_the_dirichlet_that_the_normal_came_from(classes: int) -> None:
    """Mean and covariance of the logits are a Dirichlet's; their sum is
    certain, so that 1'V1 = 0.
    """
    alpha = torch.rand(8, classes, dtype=torch.double, generator=torch.Generator().manual_seed(classes)) * 5 + 0.1
    mean = alpha.log() - alpha.log().mean(-1, keepdim=True)
    inverse = 1 / alpha
    cross = inverse.unsqueeze(-1) + inverse.unsqueeze(-2)
    covariance = torch.diag_embed(inverse) - cross / classes + inverse.sum(-1)[:, None, None] / classes**2
    close(log_concentration(mean, covariance, 1e-16, normalised=False), alpha.log())
    close(bridge(categorical, normal(mean, covariance)).probs, alpha / alpha.sum(-1, keepdim=True))


def test_the_bridge_of_two_equal_variances_leaves_the_network_as_it_is() -> None:
    mean = torch.tensor([[2.0, 0.0]], dtype=torch.double)
    for variance in (1e-4, 1.0, 1e4):
        outputs = dist.MultivariateNormal(mean, variance * torch.eye(2, dtype=torch.double))
        close(bridge(categorical, outputs).probs, mean.softmax(-1))
    far = normalised_bridge(categorical, dist.MultivariateNormal(mean, 1e4 * torch.eye(2, dtype=torch.double))).probs
    assert 0.5 < far[0, 0] < 0.51  # there the normalised bridge sees the variance
    near = normalised_bridge(categorical, dist.MultivariateNormal(mean, 1e-4 * torch.eye(2, dtype=torch.double))).probs
    assert near[0, 0] > 1 - 1e-12  # and sharpens


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("kind", ["bridge", "normalised"])
def test_the_bridge_without_variance_after_conditioning(kind: str, dtype: torch.dtype) -> None:
    """V proportional to the matrix of ones, all zeros, and one class alone that varies: finite,
    and by the means.
    """
    mean = torch.tensor([[0.5, 0.1, -0.3]], dtype=dtype)
    one = torch.zeros(3, 3)
    one[0, 0] = 1.0
    for covariance in (torch.ones(3, 3), torch.full((3, 3), 1e6), torch.zeros(3, 3), one):
        p = LINKS[kind](categorical, normal(mean, covariance.to(dtype).unsqueeze(0))).probs
        assert p.dtype == dtype
        assert p.isfinite().all()
        torch.testing.assert_close(p.sum(-1), torch.ones(1, dtype=dtype))
        if kind == "bridge" and covariance[1, 1] == covariance[0, 0]:
            centred = mean - mean.mean()
            weight = 1 - 2 / 3 + centred.exp() * (-centred).exp().sum() / 9
            torch.testing.assert_close(p, weight / weight.sum())


@pytest.mark.parametrize("kind", LINKS)
def test_links_do_not_overflow_far_away(kind: str) -> None:
    mean, covariance = random_outputs(5, 3)
    p = LINKS[kind](categorical, normal(1e4 * mean.float(), 1e8 * covariance.float()))
    assert p.probs.isfinite().all()
    assert p.log_prob(torch.zeros(5, dtype=torch.long)).shape == (5,)


@pytest.mark.parametrize("kind", LINKS)
def test_links_of_variances_alone_are_those_of_a_diagonal_covariance(kind: str) -> None:
    mean, covariance = random_outputs(5, 3)
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    diagonal = LINKS[kind](categorical, dist.Normal(mean, variance.sqrt()).to_event(1))
    close(diagonal.probs, LINKS[kind](categorical, normal(mean, torch.diag_embed(variance))).probs)


@pytest.mark.parametrize("kind", LINKS)
def test_links_do_not_depend_on_the_order_of_classes_nor_on_the_batch(kind: str) -> None:
    mean, covariance = random_outputs(5, 4)
    p = LINKS[kind](categorical, normal(mean, covariance)).probs
    order = torch.tensor([2, 0, 3, 1])
    close(LINKS[kind](categorical, normal(mean[:, order], covariance[:, order][:, :, order])).probs, p[:, order])
    close(LINKS[kind](categorical, normal(mean[2:3], covariance[2:3])).probs, p[2:3])


def test_a_users_lines() -> None:
    """A guide's outputs to metrics; close to what draws give."""
    torch.manual_seed(0)
    x = torch.randn(60, 2)
    y = (x[:, 0] + 0.5 * torch.randn(60) > 0).long()
    net = torch.nn.Linear(2, 2)
    model = BNN(net, subset.everything(net), priors.normal(1.0), categorical)
    guide = Laplace(model).fit([(x, y)])
    p = probit(model.likelihood, guide.output_distribution(x))
    drawn = predictive(guide, x, 500, model=model, linearised=True)
    assert abs(metrics.nll(p.probs, y).value - metrics.nll(drawn.probs, y).value) < 0.02
    assert metrics.ece(p.probs, y, resamples=0).value < 0.3
    torch.testing.assert_close(p.entropy(), metrics.entropy(p.probs), check_dtype=False)
    assert p.mutual_information().abs().max() < 1e-6


ONE = dist.Normal(torch.zeros(2, 1), 1.0).to_event(1)
TWO = dist.Normal(torch.zeros(2, 2), 1.0).to_event(1)
REFUSED: dict[str, tuple[Callable[..., Any], Any, Any, type[Exception], str]] = {
    "one class": (probit, categorical, ONE, ValueError, "one output is one class; for a binary target use"),
    "one class, bridge": (bridge, categorical, ONE, ValueError, "one output is one class"),
    "counts": (
        probit,
        likelihoods.poisson,
        TWO,
        ValueError,
        "Poisson has no method probit_.*; for any",
    ),
    "binary bridge": (bridge, bernoulli, TWO, ValueError, "bridge: the likelihood Bernoulli has no method"),
    "labels": (gaussian, categorical, TWO, ValueError, "Categorical has no method normal_predictive"),
    "a function": (probit, close, TWO, ValueError, "close has no method .* for any likelihood there is predictive"),
    "a tensor": (probit, categorical, torch.zeros(2, 2), TypeError, "a normal distribution of outputs is needed"),
    "swapped": (probit, TWO, categorical, ValueError, "the likelihood Independent has no method"),
    "Student": (probit, categorical, dist.StudentT(4.0, torch.zeros(2, 2)).to_event(1), TypeError, "not StudentT"),
    "no event": (probit, categorical, dist.Normal(torch.zeros(2, 2), 1.0), ValueError, r"batch shape \(2, 2\)"),
    "no batch": (bridge, categorical, dist.Normal(torch.zeros(2), 1.0).to_event(1), ValueError, r"event shape \(2,\)"),
    "latent": (gaussian, likelihoods.normal(dist.HalfCauchy(1.0)), ONE, ValueError, "the scale of the noise is latent"),
    "odd": (gaussian, likelihoods.heteroscedastic, ONE, ValueError, "needs two outputs for each target"),
    "scales": (gaussian, likelihoods.normal(torch.ones(2)), ONE, ValueError, "has 2 scales, but the network 1 outputs"),
    "endless": (
        gaussian,
        likelihoods.heteroscedastic,
        dist.Normal(torch.zeros(2, 2), 30.0).to_event(1),
        ValueError,
        "the variance of y is not finite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    link, likelihood, outputs, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        link(likelihood, outputs)


@pytest.mark.parametrize("link", [probit, bridge])
def test_outputs_that_are_not_finite_are_named(link: Callable[..., Any]) -> None:
    mean = torch.tensor([[0.0, 0.0], [0.0, math.nan]])
    outputs = dist.Normal(mean, 1.0, validate_args=False).to_event(1)
    with pytest.raises(
        ValueError, match="the outputs of example 1 are not finite: output 1 has mean nan and variance 1"
    ):
        link(categorical, outputs)
