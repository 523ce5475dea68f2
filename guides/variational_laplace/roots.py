"""Roots of the Fisher information of Pyro's distributions in their own parameters."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.nn import functional as F

Root = Callable[[Tensor], Tensor]
"""xi [..., *parameter] -> A xi, with A A^T the Fisher information in nats; linear in xi, differentiable in A."""

Rule = Callable[[Any], list[tuple[Tensor, Root | None]]]
"""A distribution -> its parameters, each with its root (None: unknown). Between parameters the information is zero."""


def _times(factor: Tensor) -> Root:
    return lambda xi: xi * factor


def _logits(fn: Any, count: float = 1.0) -> list[tuple[Tensor, Root | None]]:
    # Roots of probabilities as exponentials: the derivative of a square root is infinite at 0.
    root = (0.5 * fn.logits).exp()

    def softmax(xi: Tensor) -> Tensor:
        return math.sqrt(count) * root * (xi - root * (root * xi).sum(-1, keepdim=True))

    return [(fn.logits, softmax)]


def _binary(fn: Any, count: Tensor | float = 1.0) -> list[tuple[Tensor, Root | None]]:
    root = (0.5 * (F.logsigmoid(fn.logits) + F.logsigmoid(-fn.logits))).exp()
    return [(fn.logits, _times(root * torch.as_tensor(count).sqrt().to(root)))]


def _located(fn: Any) -> list[tuple[Tensor, Root | None]]:
    return [(fn.loc, _times(1 / fn.scale)), (fn.scale, _times(math.sqrt(2) / fn.scale))]


def _double_exponential(fn: Any) -> list[tuple[Tensor, Root | None]]:
    return [(fn.loc, _times(1 / fn.scale)), (fn.scale, _times(1 / fn.scale))]


def _cauchy(fn: Any) -> list[tuple[Tensor, Root | None]]:
    root = _times(math.sqrt(0.5) / fn.scale)
    return [(fn.scale, root)] if isinstance(fn, dist.HalfCauchy) else [(fn.loc, root), (fn.scale, root)]


def _student(fn: Any) -> list[tuple[Tensor, Root | None]]:
    df = fn.df
    loc, scale = ((df + 1) / (df + 3)).sqrt() / fn.scale, (2 * df / (df + 3)).sqrt() / fn.scale
    return [(fn.loc, _times(loc)), (fn.scale, _times(scale)), (df, None)]


def _multivariate(fn: Any) -> list[tuple[Tensor, Root | None]]:
    factor = fn.scale_tril

    def root(xi: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor.mT, xi.unsqueeze(-1), upper=True).squeeze(-1)

    return [(fn.loc, root), (factor, None)]


def _negative_binomial(fn: Any) -> list[tuple[Tensor, Root | None]]:
    rate, concentration = fn.rate, fn.concentration
    return [(fn.rate, _times((concentration / (1 + rate)).sqrt() / rate)), (concentration, None)]


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
