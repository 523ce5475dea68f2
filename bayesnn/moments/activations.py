"""Activations with closed-form moments: ReLU and leaky ReLU."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bayesnn.moments.table import moment_rule
from bayesnn.moments.value import Moments, loc_of, variance_of

TINY = 1e-30
"""Where the variance is 0: its root is then 1e-15, and the mean that of the
deterministic network in every digit.
"""


def relu_moments(loc: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """E and Var of max(x, 0), x ~ N(m, v).

    With s = sqrt(v), t = m / s and g = t Phi(t) + phi(t)

        mean = m Phi(t) + s phi(t),    var = v [ Phi(t) - g (g - t) ]

    the second without the cancellation of (m^2 + v) Phi(t) + m s phi(t) - mean^2: as v -> 0 the
    mean is max(m, 0) in every digit, however small m is, and no variance is below 0.

    References: Frey, Hinton (1999), Variational learning in nonlinear Gaussian belief networks;
    Gast, Roth (2018), Lightweight probabilistic deep networks.

    >>> relu_moments(torch.tensor(0.5), torch.tensor(1.0))
    (tensor(0.6978), tensor(0.5534))
    """
    return _Rectified.apply(loc, variance)


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        s, t, cdf, pdf = normal_parts(m, v)
        g = torch.addcmul(pdf, t, cdf)
        mean = (m * cdf).addcmul_(s, pdf)
        variance = torch.sub(g, t, out=t).mul_(g).neg_().add_(cdf).mul_(v).clamp_(min=0)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(mean, cdf, pdf.div_(s))
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_mean: Tensor, g_variance: Tensor) -> tuple[Tensor, Tensor]:
        """d mean = Phi dm + phi / (2 s) dv; d var = 2 mean (1 - Phi)
        dm + (Phi - mean phi / s) dv.
        """
        mean, cdf, curvature = ctx.saved_tensors
        a = (g_variance * mean).mul_(2)
        b = g_mean - a
        return a.addcmul_(cdf, b), (g_variance * cdf).addcmul_(curvature, b, value=0.5)


def normal_parts(m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """s, t, Phi(t) and phi(t)."""
    s = v.clamp(min=TINY).sqrt_()
    t = (m / s).clamp_(-20, 20)  # beyond, nothing changes, and its square stays finite
    cdf = (t * -math.sqrt(0.5)).erfc_().mul_(0.5)
    pdf = torch.addcmul(t.new_tensor(-0.5 * math.log(2 * math.pi)), t, t, value=-0.5).exp_()
    return s, t, cdf, pdf


def takes_gradient(loc: Tensor, variance: Tensor) -> bool:
    """Whether anybody will ask for derivatives."""
    return loc.requires_grad or variance.requires_grad


class Differentiated(torch.autograd.Function):
    """(mean, variance) whose derivatives in m and v are known: d mean / dm, d mean / dv, d
    var / dm, d var / dv.
    """

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

        mean = c m + (1 - c) [m Phi(t) + s phi(t)],
            var = v [ Phi + c^2 (1 - Phi) - (1 - c)^2 g (g - t) ]

    >>> leaky_relu_moments(torch.tensor(0.5), torch.tensor(1.0), 1.0)   # the identity
    (tensor(0.5000), tensor(1.))
    """
    with torch.no_grad():
        s, t, cdf, pdf = normal_parts(loc, variance)
        above = torch.addcmul(pdf, t, cdf)  # means of the two halves, in units of s
        below = above - t
        mean = slope * loc + (1 - slope) * (loc * cdf + s * pdf)
        square = cdf + slope**2 * (1 - cdf)
        spread = (square - (1 - slope) ** 2 * above * below).clamp_(min=0) * variance
        if not takes_gradient(loc, variance):
            return mean, spread
        slopes = (
            slope + (1 - slope) * cdf,
            (1 - slope) / 2 * pdf / s,
            2 * (1 - slope) * s * (above * (1 - cdf) + slope * below * cdf),
            square - (1 - slope) * pdf * (above - slope * below),
        )
    return Differentiated.apply(loc, variance, mean, spread, *slopes)


@moment_rule(F.relu, torch.relu, Tensor.relu)
def _relu(input: Moments, inplace: bool = False) -> Moments:
    return Moments(*relu_moments(input.loc, input.variance))


@moment_rule(F.leaky_relu)
def _leaky_relu(input: Moments, negative_slope: float = 0.01, inplace: bool = False) -> Moments:
    return Moments(*leaky_relu_moments(input.loc, input.variance, negative_slope))


@moment_rule(F.prelu, torch.prelu)
def _prelu(input: Any, weight: Any) -> Moments:
    """max(x, 0) + a min(x, 0) with a for each channel, certain or random and independent of x.

    A random a adds Var a E[min(x, 0)^2], since the two terms are never both there.
    """
    m, v = loc_of(input), variance_of(input)
    v = torch.zeros_like(m) if v is None else v
    slope, spread = (_of_channels(value, m.dim()) for value in (loc_of(weight), variance_of(weight)))
    loc, variance = _two_slopes(m, v, slope)
    if spread is not None:
        below, around = relu_moments(-m, v)
        variance = variance + spread * (below.square() + around)
    return Moments(loc, variance)


def _two_slopes(m: Tensor, v: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Of max(x, 0) + a min(x, 0), by a too: Var = Var x+ + a^2 Var x- + 2 a E x+ E x-."""
    (above, around), (below, beneath) = relu_moments(m, v), relu_moments(-m, v)
    return above - slope * below, around + slope.square() * beneath + 2 * slope * above * below


def _of_channels(value: Any, dims: int) -> Any:
    """[channel] where it broadcasts to [batch, channel, ...]."""
    return value if value is None or value.numel() == 1 or dims < 2 else value.reshape(-1, *(1,) * (dims - 2))


@moment_rule(torch.abs, Tensor.abs, Tensor.__abs__)
def _abs(input: Moments) -> Moments:
    return Moments(*leaky_relu_moments(input.loc, input.variance, -1.0))
