"""Activations with closed-form moments: ReLU, leaky ReLU, and clipping to an interval (ReLU6)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bayesnn.functional.moments.table import moment_rule
from bayesnn.functional.moments.value import Moments

_TINY = 1e-30
"""Where the variance is 0: its root is then 1e-15, and the mean that of the deterministic network in every digit."""


def relu_moments(loc: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """E and Var of max(x, 0), x ~ N(m, v).

    With s = sqrt(v), t = m / s and h = phi(t) - |t| Phi(-|t|) >= 0

        mean = max(m, 0) + s h,    var = v [ Phi(t) - h (|t| + h) ]

    which is m Phi(t) + s phi(t) and (m^2 + v) Phi(t) + m s phi(t) - mean^2 without their cancellation: as v -> 0 the
    mean is max(m, 0) in every digit, however small m is.

    References: Frey, Hinton (1999), Variational learning in nonlinear Gaussian belief networks; Gast, Roth (2018),
    Lightweight probabilistic deep networks.

    >>> relu_moments(torch.tensor(0.5), torch.tensor(1.0))
    (tensor(0.6978), tensor(0.5534))
    """
    return _Rectified.apply(loc, variance)


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        s, t, size, cdf, pdf, h = _normal_parts(m, v)
        product = size.add_(h).mul_(h)
        mean = m.clamp(min=0).addcmul_(s, h)
        variance = torch.sub(cdf, product, out=product).mul_(v).clamp_(min=0)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(mean, cdf, pdf.div_(s))
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_mean: Tensor, g_variance: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """d mean = Phi dm + phi / (2 s) dv; d var = 2 mean (1 - Phi) dm + (Phi - mean phi / s) dv."""
        mean, cdf, curvature = ctx.saved_tensors
        a = (g_variance * mean).mul_(2)
        b = g_mean - a
        return a.addcmul_(cdf, b), (g_variance * cdf).addcmul_(curvature, b, value=0.5)


def _normal_parts(m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """s, t, |t|, Phi(t), phi(t) and h."""
    s = v.clamp(min=_TINY).sqrt_()
    t = (m / s).clamp_(-20, 20)  # beyond, nothing changes, and its square stays finite
    size = t.abs()
    tail = torch.erfc(size * math.sqrt(0.5)).mul_(0.5)
    pdf = (t * t).mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
    h = torch.addcmul(pdf, size, tail, value=-1).clamp_(min=0)
    return s, t, size, torch.where(t > 0, 1 - tail, tail), pdf, h


class Differentiated(torch.autograd.Function):
    """(mean, variance) whose derivatives in m and v are known: d mean / dm, d mean / dv, d var / dm, d var / dv."""

    @staticmethod
    def forward(ctx: Any, m: Tensor, v: Tensor, mean: Tensor, variance: Tensor, *slopes: Tensor) -> Any:
        """Both, as they were given."""
        ctx.save_for_backward(*slopes)
        return mean.view_as(mean), variance.view_as(variance)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The chain rule."""
        mean_m, mean_v, variance_m, variance_v = ctx.saved_tensors
        g_mean, g_variance = gradients
        in_m = (g_mean * mean_m).addcmul_(g_variance, variance_m)
        in_v = (g_mean * mean_v).addcmul_(g_variance, variance_v)
        return (in_m, in_v, *(None,) * 6)


def leaky_relu_moments(loc: Tensor, variance: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """E and Var of max(x, 0) + c min(x, 0), x ~ N(m, v).

        mean = max(m, 0) + c min(m, 0) + (1 - c) s h,    var = v [ Phi + c^2 (1 - Phi) - (1 - c)^2 h (|t| + h) ]

    >>> leaky_relu_moments(torch.tensor(0.5), torch.tensor(1.0), 1.0)   # the identity
    (tensor(0.5000), tensor(1.))
    """
    with torch.no_grad():
        s, t, size, cdf, pdf, h = _normal_parts(loc, variance)
        mean = F.leaky_relu(loc, slope) + (1 - slope) * s * h
        above, below = t.clamp(min=0) + h, (-t).clamp(min=0) + h  # means of the two halves, in units of s
        square = cdf + slope**2 * (1 - cdf)
        spread = (square - (1 - slope) ** 2 * h * (size + h)).clamp_(min=0) * variance
        slopes = (
            slope + (1 - slope) * cdf,
            (1 - slope) / 2 * pdf / s,
            2 * (1 - slope) * s * (above * (1 - cdf) + slope * below * cdf),
            square - (1 - slope) * pdf * (above - slope * below),
        )
    return Differentiated.apply(loc, variance, mean, spread, *slopes)


def clip_moments(loc: Tensor, variance: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """E and Var of min(max(x, a), b), x ~ N(m, v): the difference of two rectified normals.

    >>> clip_moments(torch.tensor(0.0), torch.tensor(1.0), -1.0, 1.0)
    (tensor(0.), tensor(0.5160))
    """
    width = high - low
    with torch.no_grad():
        s, _, size_a, cdf_a, pdf_a, h_a = _normal_parts(loc - low, variance)
        _, _, size_b, cdf_b, pdf_b, h_b = _normal_parts(loc - high, variance)
        mean_a, mean_b = (loc - low).clamp(min=0) + s * h_a, (loc - high).clamp(min=0) + s * h_b
        var_a = (cdf_a - h_a * (size_a + h_a)) * variance
        var_b = (cdf_b - h_b * (size_b + h_b)) * variance
        # b - E y, without cancellation where x is far above
        below = (high - loc).clamp(min=0) + s * h_b - (low - loc).clamp(min=0) - s * h_a
        mean = loc.clamp(low, high) + s * (h_a - h_b)
        # y - a = r_a - r_b with E[r_a r_b] = E[r_b^2] + (b - a) E r_b, so that Cov = Var r_b + E r_b (b - E y)
        spread = (var_a - var_b - 2 * mean_b * below).clamp_(min=0)
        inside, edge = cdf_a - cdf_b, (pdf_a - pdf_b) / (2 * s)
        rise = mean_a - mean_b
        slopes = (
            inside,
            edge,
            2 * (rise * (1 - inside) - width * cdf_b),
            inside - width * pdf_b / s - 2 * rise * edge,
        )
    return Differentiated.apply(loc, variance, mean, spread, *slopes)


@moment_rule(F.relu, torch.relu, Tensor.relu)
def _relu(input: Moments, inplace: bool = False) -> Moments:
    return Moments(*relu_moments(input.loc, input.variance))


@moment_rule(F.leaky_relu)
def _leaky_relu(input: Moments, negative_slope: float = 0.01, inplace: bool = False) -> Moments:
    return Moments(*leaky_relu_moments(input.loc, input.variance, negative_slope))


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
    assert min is not None and max is not None, "torch refuses a clamp without bounds"
    return Moments(*clip_moments(input.loc, input.variance, min, max))
