"""Roots of the Fisher information of Pyro's distributions in their own parameters."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.likelihoods.scores import bernoulli_logit, negative_binomial_log_mean, student_t_location

Root = Callable[[Tensor], Tensor]
"""xi [..., *parameter] -> A xi, with A A^T the Fisher information in nats; linear in xi,
differentiable in A.
"""

Rule = Callable[[Any], list[tuple[Tensor, Root | None]]]
"""A distribution -> its parameters, each with its root (None: unknown). Between parameters the
information is zero.
"""


def rule_of(fn: Any, rules: Mapping[type, Rule]) -> Rule | None:
    """The rule of a distribution's class, or of the nearest above it."""
    return next((rules[kind] for kind in type(fn).__mro__ if kind in rules), None)


def _times(factor: Tensor) -> Root:
    return lambda xi: xi * factor


def _logits(fn: Any, count: float = 1.0) -> list[tuple[Tensor, Root | None]]:
    # Roots of probabilities as exponentials: the derivative of a square root is infinite at 0.
    root = (0.5 * fn.logits).exp()

    def softmax(xi: Tensor) -> Tensor:
        return math.sqrt(count) * root * (xi - root * (root * xi).sum(-1, keepdim=True))

    return [(fn.logits, softmax)]


def _binary(fn: Any, count: Tensor | float = 1.0) -> list[tuple[Tensor, Root | None]]:
    return [(fn.logits, _times(bernoulli_logit(fn.logits) * torch.as_tensor(count).sqrt().to(fn.logits)))]


def _located(fn: Any) -> list[tuple[Tensor, Root | None]]:
    return [(fn.loc, _times(1 / fn.scale)), (fn.scale, _times(math.sqrt(2) / fn.scale))]


def _double_exponential(fn: Any) -> list[tuple[Tensor, Root | None]]:
    return [(fn.loc, _times(1 / fn.scale)), (fn.scale, _times(1 / fn.scale))]


def _cauchy(fn: Any) -> list[tuple[Tensor, Root | None]]:
    root = _times(math.sqrt(0.5) / fn.scale)
    return [(fn.scale, root)] if isinstance(fn, dist.HalfCauchy) else [(fn.loc, root), (fn.scale, root)]


def _student(fn: Any) -> list[tuple[Tensor, Root | None]]:
    df = fn.df
    loc, scale = student_t_location(df, fn.scale), (2 * df / (df + 3)).sqrt() / fn.scale
    return [(fn.loc, _times(loc)), (fn.scale, _times(scale)), (df, None)]


def _multivariate(fn: Any) -> list[tuple[Tensor, Root | None]]:
    factor = fn.scale_tril

    def root(xi: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor.mT, xi.unsqueeze(-1), upper=True).squeeze(-1)

    return [(fn.loc, root), (factor, None)]


def _negative_binomial(fn: Any) -> list[tuple[Tensor, Root | None]]:
    rate, concentration = fn.rate, fn.concentration
    # The mean is concentration / rate, so that d log mean = -d rate / rate.
    return [
        (rate, _times(negative_binomial_log_mean(concentration / rate, concentration) / rate)),
        (concentration, None),
    ]


RULES: Mapping[type, Rule] = {
    dist.Normal: _located,
    dist.LogNormal: _located,
    dist.HalfNormal: lambda fn: [(fn.scale, _times(math.sqrt(2) / fn.scale))],
    dist.Cauchy: _cauchy,
    dist.HalfCauchy: _cauchy,
    dist.Laplace: _double_exponential,
    dist.StudentT: _student,
    dist.MultivariateNormal: _multivariate,
    dist.Categorical: _logits,
    dist.OneHotCategorical: _logits,
    dist.Multinomial: lambda fn: _logits(fn, fn.total_count),
    dist.Bernoulli: _binary,
    dist.Binomial: lambda fn: _binary(fn, fn.total_count),
    dist.Poisson: lambda fn: [(fn.rate, _times(fn.rate.rsqrt()))],
    dist.Exponential: lambda fn: [(fn.rate, _times(1 / fn.rate))],
    dist.GammaPoisson: _negative_binomial,
}
