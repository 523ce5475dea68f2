"""`gaussian`: exact for a normal likelihood, of exact moments for a heteroscedastic one."""

from typing import Any

import pytest
import torch
from laplace_problems import golden, mode
from output_distributions import normal, random_outputs
from pyro import distributions as dist
from statistical import assert_mean
from torch import Tensor

from bayesnn import learned, likelihoods, metrics
from bayesnn.guides import Laplace
from bayesnn.predict import gaussian


def close(actual: Tensor, expected: Any) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.double), rtol=0, atol=1e-8)


def test_gaussian_is_the_exact_predictive_of_a_linear_model() -> None:
    """The golden predictive: mean 1.7632653061, variance 0.3858754028 with the noise."""
    model, x, y = golden()
    guide = Laplace(model, mode(model, x, y)).fit([(x, y)])
    new = torch.tensor([[1.0, 1.5], [-1.0, 0.3]], dtype=torch.double)
    p = gaussian(model.likelihood, guide.output_distribution(new))
    close(p.mean[0, 0], 1.7632653061)
    close(p.variance[0, 0], 0.3858754028)
    target = torch.zeros(2, 1, dtype=torch.double)
    exact = dist.Normal(p.mean[:, 0], p.variance[:, 0].sqrt())
    close(p.log_prob(target), exact.log_prob(target[:, 0]))
    low, high = p.interval(0.9)
    close(low[:, 0], exact.icdf(torch.tensor(0.05, dtype=torch.double)))
    assert metrics.coverage(low[:, 0], high[:, 0], p.mean[:, 0]).value == 1.0


@pytest.mark.parametrize("scale", [0.5, torch.tensor([0.5, 0.1, 2.0]), learned(0.5)])
def test_gaussian_of_several_targets(scale: Any) -> None:
    """Joint where the covariance is known: that of the sum, and the marginals of each target."""
    mean, covariance = random_outputs(4, 3)
    likelihood = likelihoods.normal(scale)
    noise = likelihood(mean).variance.detach()
    p = gaussian(likelihood, normal(mean, covariance))
    exact = dist.MultivariateNormal(mean, covariance + torch.diag_embed(noise))
    y = torch.zeros(4, 3, dtype=torch.double)
    close(p.log_prob(y), exact.log_prob(y))
    assert not p.log_prob(y).requires_grad
    deviation = (covariance.diagonal(dim1=-2, dim2=-1) + noise).sqrt()
    close(p.variance, deviation**2)
    close(p.cdf(y), dist.Normal(mean, deviation).cdf(y))
    close(p.icdf(0.9), dist.Normal(mean, deviation).icdf(torch.tensor(0.9, dtype=torch.double)))
    alone = gaussian(likelihood, dist.Normal(mean, covariance.diagonal(dim1=-2, dim2=-1).sqrt()).to_event(1))
    close(alone.cdf(y), p.cdf(y))
    close(alone.log_prob(y), dist.Normal(mean, deviation).to_event(1).log_prob(y))


def test_gaussian_of_outputs_without_density() -> None:
    """A covariance of rank one in float32, large beside the noise."""
    mean = torch.zeros(1, 3)
    p = gaussian(likelihoods.normal(0.01), normal(mean, torch.full((1, 3, 3), 1e4)))
    assert p.log_prob(mean).isfinite().all()


def test_gaussian_moments_of_a_heteroscedastic_network_are_exact() -> None:
    torch.manual_seed(0)
    mean, covariance = random_outputs(2, 4, scale=0.05)
    mean = 0.3 * mean
    outputs = normal(mean, covariance)
    p = gaussian(likelihoods.heteroscedastic, outputs)
    assert p.event_shape == (2,)
    y = likelihoods.heteroscedastic(outputs.sample((100_000,))).sample()
    assert_mean(y, p.mean)
    centred = y - p.mean
    expected = p.components.covariance_matrix[0]
    assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), expected)
