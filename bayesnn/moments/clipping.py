"""Clipping to an interval in closed form: ReLU6, hard tanh, hard sigmoid, clamp."""

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.activations import Differentiated, normal_parts, relu_moments, takes_gradient
from bayesnn.moments.table import moment_rule
from bayesnn.moments.value import Moments


def clip_moments(loc: Tensor, variance: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """E and Var of min(max(x, a), b), x ~ N(m, v): the difference of two rectified normals.

    >>> clip_moments(torch.tensor(0.5), torch.tensor(1.0), -1.0, 1.0)
    (tensor(0.3315), tensor(0.4534))
    """
    if bool(high - loc.amax() > 10 * variance.amax().sqrt()):
        mean, spread = relu_moments(loc - low, variance)  # the upper bound is out of reach
        return mean + low if low else mean, spread
    if not (torch.is_grad_enabled() and takes_gradient(loc, variance)):
        return _in_blocks(loc, variance, low, high)
    with torch.no_grad():
        s, t, cdf, pdf = normal_parts(loc - low, variance)
        _, t_high, cdf_high, pdf_high = normal_parts(loc - high, variance)
        inside, edge = cdf - cdf_high, (pdf - pdf_high) / (2 * s)
        falling, width = cdf_high.clone(), high - low
        steep = inside - width * pdf_high / s
        mean, spread = _clipped(loc, variance, low, high, s, (t, cdf, pdf), (t_high, cdf_high, pdf_high))
        rise = mean - low
        slopes = (inside, edge, 2 * (rise * (1 - inside) - width * falling), steep - 2 * rise * edge)
    return Differentiated.apply(loc, variance, mean, spread, *slopes)


_Parts = tuple[Tensor, Tensor, Tensor]


def _clipped(
    m: Tensor, v: Tensor, low: float, high: float, s: Tensor, lower: _Parts, upper: _Parts
) -> tuple[Tensor, Tensor]:
    """Mean and variance from (t, Phi, phi) at both bounds, which are overwritten.

    y - a = r_a - r_b with r_c = max(x - c, 0) and E[r_a r_b] = E[r_b^2] + (b - a) E r_b.
    """
    (t, cdf, pdf), (t_high, cdf_high, pdf_high) = lower, upper
    # E r_a and E r_b, in units of s
    g, g_high = pdf.addcmul_(t, cdf), pdf_high.addcmul_(t_high, cdf_high)
    rest, rest_high = g - t, g_high - t_high  # E max(a - x, 0) and E max(b - x, 0)
    # not the difference of two rectified means, which are far from 0 where x is far above
    shift = (g - t.clamp_(min=0)).sub_(g_high).add_(t_high.clamp_(min=0))
    mean = m.clamp(low, high).addcmul_(s, shift)
    ratio = cdf.sub_(cdf_high).addcmul_(rest, g.sub_(g_high, alpha=2), value=-1)
    return mean, ratio.addcmul_(g_high, rest_high, value=-1).clamp_(min=0).mul_(v)


def _in_blocks(loc: Tensor, variance: Tensor, low: float, high: float, size: int = 2**15) -> tuple[Tensor, Tensor]:
    """Without derivatives, a block at a time: dozens of passes over a large
    tensor are the memory's time.
    """
    m, v = loc.reshape(-1), variance.reshape(-1)
    mean, spread = torch.empty_like(m), torch.empty_like(m)
    size = size if m.device.type == "cpu" else max(len(m), 1)
    for part in range(0, len(m), size):
        at = slice(part, part + size)
        s, *lower = normal_parts(m[at] - low, v[at])
        _, *upper = normal_parts(m[at] - high, v[at])
        mean[at], spread[at] = _clipped(
            m[at], v[at], low, high, s, (lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2])
        )
    return mean.reshape(loc.shape), spread.reshape(loc.shape)


@moment_rule(F.hardsigmoid)
def _hardsigmoid(input: Moments, inplace: bool = False) -> Moments:
    return Moments(*clip_moments(input.loc / 6 + 0.5, input.variance / 36, 0.0, 1.0))


@moment_rule(F.relu6)
def _relu6(input: Moments, inplace: bool = False) -> Moments:
    return Moments(*clip_moments(input.loc, input.variance, 0.0, 6.0))


@moment_rule(F.hardtanh)
def _hardtanh(input: Moments, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Moments:
    return Moments(*clip_moments(input.loc, input.variance, min_val, max_val))


@moment_rule(torch.clamp, torch.clip, Tensor.clamp, Tensor.clip)
def _clamp(input: Moments, min: float | None = None, max: float | None = None) -> Moments:
    if max is None and min is not None:
        loc, variance = relu_moments(input.loc - min, input.variance)
        return Moments(loc + min, variance)
    if min is None and max is not None:
        loc, variance = relu_moments(max - input.loc, input.variance)
        return Moments(max - loc, variance)
    assert min is not None
    assert max is not None
    return Moments(*clip_moments(input.loc, input.variance, min, max))


@moment_rule(torch.clamp_min, Tensor.clamp_min)
def _clamp_min(input: Moments, min: float) -> Moments:
    return _clamp(input, min=min)


@moment_rule(torch.clamp_max, Tensor.clamp_max)
def _clamp_max(input: Moments, max: float) -> Moments:
    return _clamp(input, max=max)
