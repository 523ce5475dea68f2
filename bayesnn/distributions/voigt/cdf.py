"""The cumulative distribution function of a Voigt distribution, and its quantiles."""

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesnn.distributions.chunks import in_chunks
from bayesnn.distributions.voigt.density import TINY, argument
from bayesnn.distributions.voigt.faddeeva import STEP, faddeeva, nodes, voigt_function

FARTHEST = 3.2
"""The residue's integral ends here: beyond, its integrand is below 1e-13."""
POINTS = 40
"""Gauss-Legendre points on it."""
SMALLEST = 1e-200
"""Quantiles of smaller probabilities are that of this one; that of 0 is -inf."""
PRECISION = 1e-11
"""Relative length of the last Newton step, which leaves the square of it as the error."""
STEPS = 100
"""At most so many Newton steps or bisections; about six are needed."""


def cdf(deviation: Tensor, sigma: Tensor, gamma: Tensor) -> Tensor:
    """F = Phi(x sqrt 2) - 1/sqrt(pi) int_0^y Im w(x + i s) ds at z = x + i y of `log_density`.

    All tensors are double and of one shape.

    The trapezoidal rule for w is integrated term by term, and its residue by a Gauss-Legendre
    rule. The smaller tail is the one computed, with relative accuracy. Slopes are closed forms in
    w.
    """
    return _Cdf.apply(deviation, sigma, gamma)


def quantile(probability: Tensor, sigma: Tensor, gamma: Tensor) -> Tensor:
    """The deviation from the location at which F is `probability`, by bracketed Newton steps.

    All tensors are double and of one shape.
    """
    return _Quantile.apply(probability, sigma, gamma)


class _Cdf(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(deviation: Tensor, sigma: Tensor, gamma: Tensor) -> Tensor:
        tail = torch.where(deviation.isinf(), 0.0, _lower_tail(-deviation.abs(), sigma, gamma))
        return torch.where(deviation > 0, 1 - tail, tail)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, sigma, _ = ctx.saved_tensors
        w, slope = faddeeva(*argument(*ctx.saved_tensors), 1)
        each = gradient / (sigma * math.sqrt(2 * math.pi))
        return each * w.real, each * slope.real / math.sqrt(2), -each * w.imag


class _Quantile(torch.autograd.Function):
    """Slopes by the implicit function theorem."""

    @staticmethod
    def forward(probability: Tensor, sigma: Tensor, gamma: Tensor) -> Tensor:
        tail = torch.minimum(probability, 1 - probability)
        quantile = _solve(tail.clamp(min=SMALLEST), sigma, gamma)
        quantile = torch.where(tail <= 0, -torch.inf, quantile)
        return torch.where(probability > 0.5, -quantile, quantile)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, sigma, gamma = inputs
        ctx.save_for_backward(output, sigma, gamma)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, sigma, _ = ctx.saved_tensors
        w, slope = faddeeva(*argument(*ctx.saved_tensors), 1)
        each = gradient / w.real.clamp(min=TINY)
        return each * sigma * math.sqrt(2 * math.pi), -each * slope.real / math.sqrt(2), each * w.imag


def _lower_tail(deviation: Tensor, sigma: Tensor, gamma: Tensor) -> Tensor:
    """F where deviation <= 0."""
    return in_chunks(lambda x, y: (_tail(x, y),), *argument(deviation, sigma, gamma))[0]


def _tail(x: Tensor, y: Tensor) -> Tensor:
    distance, weight = nodes(x)
    angles = (weight * torch.atan(y.unsqueeze(-1) / distance)).sum(-1) * (STEP / math.pi**1.5)
    points, weights = (torch.as_tensor(array).to(x) for array in _gauss_legendre())
    length = y.clamp(max=FARTHEST)
    s = length.unsqueeze(-1) * points
    bell = torch.exp(s**2 - x.unsqueeze(-1) ** 2)
    residue = (weights * bell * torch.sin(2 * x.unsqueeze(-1) * s) * torch.sigmoid(-2 * math.pi / STEP * s)).sum(-1)
    return torch.erfc(-x) / 2 - angles + residue * length * (2 / math.sqrt(math.pi))


@functools.cache
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    """Nodes on [0, 1], denser near 0 (s = u^2), near which the residue has poles."""
    u, weights = np.polynomial.legendre.leggauss(POINTS)
    u, weights = (u + 1) / 2, weights / 2
    return u**2, 2 * u * weights


def _solve(probability: Tensor, sigma: Tensor, gamma: Tensor) -> Tensor:
    """The quantile of a probability <= 1/2, which is <= 0.

    It lies below that of either part, as symmetric unimodal noise spreads, and above the sum of
    theirs at half the probability.
    """
    low = sigma * torch.special.ndtri(probability / 2) - gamma / torch.tan(math.pi / 2 * probability)
    high = torch.minimum(sigma * torch.special.ndtri(probability), -gamma / torch.tan(math.pi * probability))
    q = high
    for _ in range(STEPS):
        value = _lower_tail(q, sigma, gamma)
        below = value < probability
        low, high = torch.where(below, q, low), torch.where(below, high, q)
        density = voigt_function(*argument(q, sigma, gamma)) / (sigma * math.sqrt(2 * math.pi))
        # for log F, which is flatter than F in both kinds of tails
        step = -value / density.clamp(min=TINY) * (value / probability).log()
        small = step.abs() <= PRECISION * (q.abs() + sigma + gamma)
        q = torch.where(small | ((q + step > low) & (q + step < high)), q + step, (low + high) / 2)
        if bool(small.all()):
            break
    return q
