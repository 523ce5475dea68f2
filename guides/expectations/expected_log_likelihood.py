"""E[log p(y | f)] for normal outputs f, likelihood by likelihood."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor
from torch.nn import functional as F

from bayesnn.guides.expectations.logit_draws import LogitDraws
from bayesnn.guides.expectations.output_covariance import covariance_root, variances
from bayesnn.likelihoods import Likelihood
from bayesnn.likelihoods.classes import Bernoulli, Categorical
from bayesnn.likelihoods.counts import Poisson
from bayesnn.likelihoods.real import HeteroscedasticNormal, Normal
from bayesnn.moments import Moments, elementwise_moments
from bayesnn.sites import base_of, latent_nodes

_log_sigmoid = elementwise_moments(F.logsigmoid)
_DRAWS = LogitDraws()


def expected_log_likelihood(
    likelihood: Likelihood,
    mean: Tensor,
    variance: Tensor,
    y: Tensor,
    *,
    categorical: Callable[[Tensor, Tensor, Tensor], Tensor] = _DRAWS,
    draws: int = 64,
) -> Tensor:
    """E[log p(y | f)], f ~ N(mean, V), [batch], in nats.

    Exact for normal, heteroscedastic normal and Poisson; one-dimensional quadrature for Bernoulli; `categorical` for
    labels; for other likelihoods the mean over draws of f.

    Args:
        likelihood: outputs -> distribution of y.
        mean: [batch, out].
        variance: V, [batch, out] of independent outputs, or their covariances [batch, out, out].
        y: targets.
        categorical: (mean, variance, labels) -> [batch], with V as it is given.
        draws: of f, where there is no formula.

    Raises:
        ValueError: a latent scale of the likelihood.

    >>> from bayesnn import likelihoods
    >>> expected_log_likelihood(likelihoods.bernoulli, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1))
    tensor([-0.8061])
    """
    if isinstance(likelihood, HeteroscedasticNormal):
        return heteroscedastic_expectation(mean, variance, y)
    if isinstance(likelihood, Categorical):
        return categorical(mean, variance, y)
    covariance, variance = variance, variances(mean, variance)
    if isinstance(likelihood, Normal) and not isinstance(likelihood.scale, torch.distributions.Distribution):
        return normal_expectation(mean, variance, y, base_of(likelihood(mean)).scale)
    if isinstance(likelihood, Bernoulli):
        return _log_sigmoid(Moments((2 * y - 1) * mean, variance)).loc.sum(-1)
    if isinstance(likelihood, Poisson):
        return (y * mean - (mean + variance / 2).exp() - (y + 1).lgamma()).sum(-1)
    return _drawn(likelihood, mean, covariance, y, draws)


def normal_expectation(mean: Tensor, variance: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """sum_k [ log N(y_k; mean_k, noise_k^2) - variance_k / (2 noise_k^2) ], [batch], in nats: exact.

    Args:
        mean: of the outputs, [batch, out].
        variance: of the outputs, [batch, out].
        y: [batch, out].
        noise: standard deviation of y given its output, broadcasts to y.

    >>> one = torch.ones(1, 1)
    >>> normal_expectation(one, 0.5 * one, one, one)            # -0.5 log(2 pi) - 0.25
    tensor([-1.1689])
    """
    each = dist.Normal(mean, noise, validate_args=False).log_prob(y)
    return (each - 0.5 * variance / noise**2).sum(-1)


def heteroscedastic_expectation(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """sum_k -1/2 [ log(2 pi) + 2 m_s + exp(2 v_s - 2 m_s) ((y - m_f + 2 c)^2 + v_f) ], [batch]: exact.

    For y ~ N(f, exp(s)^2) with f ~ N(m_f, v_f) and s ~ N(m_s, v_s), the log of a standard deviation, of covariance c.

    Args:
        mean: of (f, s), [batch, 2 * out].
        variance: of (f, s), [batch, 2 * out], where c is 0; or their covariances [batch, 2 * out, 2 * out].
        y: [batch, out].

    References: Wu, Nowozin, Meeds, Turner, Hernández-Lobato, Gaunt (2019), Deterministic variational inference for
    robust Bayesian neural networks; Schmitt, Roth (2021), in the log of a variance.

    >>> heteroscedastic_expectation(torch.tensor([[0.7, -0.25]]), torch.tensor([[0.3, 0.05]]), torch.tensor([[1.1]]))
    tensor([-1.0880])
    """
    (m_f, m_s), (v_f, v_s) = mean.chunk(2, -1), variances(mean, variance).chunk(2, -1)
    if variance.dim() > mean.dim():
        targets = m_f.shape[-1]
        m_f = m_f - 2 * variance[..., :targets, targets:].diagonal(dim1=-2, dim2=-1)
    squares = (y - m_f).square() + v_f
    # The Gaussian log density at scale exp(m_s), whose squares have another expectation.
    each = dist.Normal(0.0, m_s.exp(), validate_args=False).log_prob(torch.zeros_like(m_s))
    return (each - 0.5 * (2 * v_s - 2 * m_s).exp() * squares).sum(-1)


def _drawn(likelihood: Likelihood, mean: Tensor, variance: Tensor, y: Tensor, draws: int) -> Tensor:
    noise = torch.randn((draws, *mean.shape), dtype=mean.dtype, device=mean.device)
    if variance.dim() > mean.dim():
        noise = torch.einsum("bij,dbj->dbi", covariance_root(variance), noise)
    else:
        noise = variance.clamp(min=1e-30).sqrt() * noise
    with poutine.trace() as traced:
        distribution: Any = likelihood(mean + noise)
    if latent := list(latent_nodes(traced.trace.nodes)):
        raise ValueError(
            f"MomentPropagationELBO: the likelihood's {latent[0]!r} is latent; use learned(...), or MeanField"
        )
    return distribution.log_prob(y).mean(0)
