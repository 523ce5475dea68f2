"""The mean of sigmoid(t) over a Cauchy distributed logit t, as a logit, with
its gradient in closed form.
"""

import math
from typing import Any

import torch
from torch import Tensor

from bayesnn.distributions.chunks import in_chunks

TERMS = 12
"""Terms that are summed one by one; the others by the Euler-Maclaurin formula."""
COEFFICIENTS = [
    (2 * math.pi) ** (2 * j - 1) * b for j, b in enumerate([-1 / 12, 7 / 240, -31 / 1344, 127 / 3840, -2555 / 33792], 1)
]
"""H^(2j - 1) B_2j(1/2) with H = 2 pi, the distance of two terms, and the Bernoulli polynomials."""
LAST = 2 * math.pi * TERMS
"""B, where the formula takes over."""
NARROW = 1.0
"""Where the Cauchy scale is smaller, the tail is written as the logistic one plus a term of the
order of the scale.
"""
TINY = 1e-290
"""Where the tail is smaller, it is the logistic one: the scale is 0."""
STEEPEST = 1e30
"""Bounds the slope in the scale, which overflows where the scale is 0 far from
the centre: inf * 0 would be NaN.
"""


def logit_of_mean(loc: Tensor, scale: Tensor) -> Tensor:
    """logit(P), P = E sigmoid(t) over t ~ Cauchy(loc, scale) = 1/2 + Im psi(1/2 + (scale + i
    loc) / (2 pi)) / pi.

    psi is the digamma function: sigmoid(t) - 1/2 is the sum of 2 t / (t^2 + b^2) over b = pi, 3
    pi, 5 pi, ..., and the mean of each over t is 2 loc / (loc^2 + (scale + b)^2). Double
    precision, of one shape.
    """
    return _LogitOfMean.apply(loc, scale)[0]


class _LogitOfMean(torch.autograd.Function):
    """The logit; and its slopes, which are most of the work and are kept for the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        return in_chunks(logit_and_slopes, loc, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        loc, scale, in_loc, in_scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives are asked for
            in_loc, in_scale = logit_and_slopes(loc, scale)[1:]
        return gradient * in_loc, gradient * in_scale


def logit_and_slopes(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`logit_of_mean` and its slopes in loc and scale, without a graph."""
    sign = torch.where(loc < 0, -1.0, 1.0).to(loc)
    tail, in_loc, in_scale = _smaller_probability(sign * loc, scale)
    logistic, variance = tail < TINY, (tail * (1 - tail)).clamp(min=TINY)
    size = torch.where(logistic, sign * loc, torch.log1p(-tail) - tail.clamp(min=TINY).log())
    slope = torch.where(logistic, 1.0, -in_loc / variance)
    return sign * size, slope, sign * (-in_scale / variance).clamp(min=-STEEPEST)


def _smaller_probability(m: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E sigmoid(-t) over t ~ Cauchy(m, g), m >= 0, with relative accuracy, and
    its slopes in m and g.
    """
    wide, narrow = _wide(torch.complex(g, m)), _narrow(torch.complex(m, g.clamp(max=NARROW)))
    tail, in_m, in_g = (torch.where(g > NARROW, *pair) for pair in zip(wide, narrow, strict=True))
    return tail, in_m, in_g


def _wide(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1/2 + 2 Im s(w) at w = g + i m, s(w) = sum_b 1 / (b + w)."""
    each, last = 1 / (w.unsqueeze(-1) + _poles(w)), 1 / (w + LAST)
    rest, rest_slope, square = torch.zeros_like(w), torch.zeros_like(w), last**2
    for j, c in reversed(list(enumerate(COEFFICIENTS, 1))):
        rest, rest_slope = (rest + c / (2 * j)) * square, (rest_slope - c) * square
    # log(B + w) has the imaginary part pi/2 - atan2(B + g, m): its 1/2 is gone with the 1/2 of the
    # tail
    tail = torch.atan2(w.real + LAST, w.imag) / math.pi + 2 * (each.sum(-1) + rest).imag
    slope = (rest_slope - 1 / (2 * math.pi)) * last - (each**2).sum(-1)
    return tail, 2 * slope.real, 2 * slope.imag


def _narrow(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Re sigmoid(-z) - 2 Im r(z^2) at z = m + i g, r(z^2) = sum_b b / (b^2 + z^2) = (s(i z) + s(-i
    z)) / 2.

    The first is even in g, and the second is odd. As r is real for real z^2, all products and sums
    in its imaginary part have the order of g: nothing cancels for g -> 0, where the tail is that
    of sigmoid(m).
    """
    q, poles, square = torch.exp(-z), _poles(z), z**2
    logistic = q / (1 + q)
    logistic_slope = -logistic / (1 + q)
    each, last = 1 / (poles**2 + square.unsqueeze(-1)), 1 / (LAST**2 + square)
    r, slope = (poles * each).sum(-1) + last.log() / (4 * math.pi), -last / (4 * math.pi) - (poles * each**2).sum(-1)
    # sums of powers (B + i z)^-2j + (B - i z)^-2j by the recurrence of the sums of powers of two
    # numbers
    product = last**2
    total, total_slope = 2 * (LAST**2 - square) * product, 2 * product * (1 - 4 * LAST**2 * last)
    sums, slopes = [torch.full_like(z, 2), total], [torch.zeros_like(z), total_slope]
    for j, c in enumerate(COEFFICIENTS, 1):
        r, slope = r + c / (4 * j) * sums[j], slope + c / (4 * j) * slopes[j]
        sums.append(total * sums[j] - product * sums[j - 1])
        slopes.append(total * slopes[j] + total_slope * sums[j] - product * (slopes[j - 1] - 2 * last * sums[j - 1]))
    slope = 2 * z * slope
    return logistic.real - 2 * r.imag, logistic_slope.real - 2 * slope.imag, -logistic_slope.imag - 2 * slope.real


def _poles(like: Tensor) -> Tensor:
    """The b: pi, 3 pi, 5 pi, ..., below B."""
    return torch.arange(1, 2 * TERMS, 2, dtype=torch.double, device=like.device) * math.pi
