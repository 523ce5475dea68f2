"""E[log p(y | f)] for normal outputs f: by the likelihood's own formula, or by draws of f."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from bayesnn.functional import alone
from bayesnn.guides.expectations.logit_draws import LogitDraws
from bayesnn.guides.expectations.output_covariance import covariance_root
from bayesnn.likelihoods import HasExpectation, HasLabelExpectation, Likelihood
from bayesnn.sites import latent_nodes

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

    Where the likelihood has an `expected_log_prob`: exact for normal, heteroscedastic normal and
    Poisson, by one-dimensional quadrature for Bernoulli. `categorical` for labels; for other
    likelihoods the mean over draws of f.

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
    if isinstance(likelihood, HasExpectation):
        return likelihood.expected_log_prob(mean, variance, y)
    if isinstance(likelihood, HasLabelExpectation):
        return likelihood.expected_log_prob_by(categorical, mean, variance, y)
    return _drawn(likelihood, mean, variance, y, draws)


def _drawn(likelihood: Likelihood, mean: Tensor, variance: Tensor, y: Tensor, draws: int) -> Tensor:
    noise = torch.randn((draws, *mean.shape), dtype=mean.dtype, device=mean.device)
    if variance.dim() > mean.dim():
        noise = torch.einsum("bij,dbj->dbi", covariance_root(variance), noise)
    else:
        noise = variance.clamp(min=1e-30).sqrt() * noise
    with alone(), poutine.trace() as traced:
        distribution: Any = likelihood(mean + noise)
    if latent := list(latent_nodes(traced.trace.nodes)):
        raise ValueError(
            f"MomentPropagationELBO: the likelihood's {latent[0]!r} is latent; use learned(...), or MeanField"
        )
    return distribution.log_prob(y).mean(0)
