"""Covariances of rectified units: ReLU, leaky ReLU, absolute values, one-sided clipping."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bayesnn.moments.activations import TINY, leaky_relu_moments, normal_parts, relu_moments
from bayesnn.moments.joint import JointMoments, covariance_rule

_CLOSEST = 1 - 1e-6  # to a correlation of 1, where the derivative of the approximation has a pole
_BLOCK = 2**18  # entries that the steps of a CPU share in its cache


def rectified(x: JointMoments, slope: float = 0.0) -> JointMoments:
    """E and Cov of max(x, 0) + c min(x, 0), x ~ N(m, C).

    Means and variances are exact. With u = m / sd, g = c + (1 - c) Phi(u) and the correlation r,
    the covariance of two units is C_ij times

        g_i g_j + (1 - c)^2 Q_ij,    Q = A / (2 pi) exp( -b (u_i^2 + u_j^2) + d u_i u_j )
        A = asin r - r / (1 + t),  b = r / (2 A (1 + t)),  d = (asin r - r) / (A r),
            t = sqrt(1 - r^2)

    It is exact for means of 0 and in the limits r -> 0 and m -> +-infinity; elsewhere off by up to
    1.2e-4 sd_i sd_j for |r| < 0.5 and 1.2e-2 for |r| -> 1. |r| counts as at most 1 - 1e-6, since
    derivatives have a pole at 1. The matrix is not semi-definite by construction, only nearly.

    Args:
        x: [..., n].
        slope: c, below 0.

    Reference: Wu, Nowozin, Meeds, Turner, Hernández-Lobato, Gaunt (2019), Deterministic
    variational inference for robust Bayesian neural networks.

    >>> x = JointMoments(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    >>> rectified(x).covariance
    tensor([[0.3408, 0.1453],
            [0.1453, 0.3408]])
    """
    moments = relu_moments(x.loc, x.variance) if slope == 0 else leaky_relu_moments(x.loc, x.variance, slope)
    n = x.shape[-1]
    rows = [value.reshape(-1, n) for value in (x.loc, x.variance, moments[1])]
    covariance = _RectifiedCovariance.apply(x.covariance.reshape(-1, n, n), *rows, slope)
    return JointMoments(moments[0], covariance.reshape(x.covariance.shape), moments[1])


class _RectifiedCovariance(torch.autograd.Function):
    """Off the diagonal as above, and `result` on it; by blocks of examples, and
    all again for the derivative.
    """

    @staticmethod
    def forward(ctx: Any, covariance: Tensor, m: Tensor, v: Tensor, result: Tensor, slope: float) -> Tensor:
        s, u, cdf, pdf = normal_parts(m, v)
        ctx.save_for_backward(covariance, v, s, u, cdf, pdf)
        ctx.slope = slope
        gain, out = slope + (1 - slope) * cdf, torch.empty_like(covariance)
        for at in blocks(covariance):
            parts = _parts(covariance[at], 1 / s[at], u[at])
            kernel = parts.remainder.mul_((1 - slope) ** 2).addcmul_(gain[at].unsqueeze(-1), gain[at].unsqueeze(-2))
            torch.mul(kernel, covariance[at], out=out[at])
        out.diagonal(dim1=-2, dim2=-1).copy_(result)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """By C, with m / s and log s between: r = C / (s s) falls with log s, and u with it."""
        covariance, v, s, u, cdf, pdf = ctx.saved_tensors
        slope = ctx.slope
        gain, steep, weight = slope + (1 - slope) * cdf, (1 - slope) * pdf, (1 - slope) ** 2
        in_covariance, in_u, in_log = torch.empty_like(covariance), torch.empty_like(u), torch.empty_like(u)
        for at in blocks(covariance):
            parts = _parts(covariance[at], 1 / s[at], u[at])
            remainder = parts.remainder.mul_(weight)
            # r dQ/dr, the change of the factor with the correlation
            change = (parts.squares - 2 * parts.r * parts.product).div_(parts.t).add_(parts.exponent, alpha=2)
            change = (2 - change).mul_(parts.b).addcmul_(parts.d, parts.product, value=-1).mul_(remainder)
            kernel = torch.addcmul(change + remainder, gain[at].unsqueeze(-1), gain[at].unsqueeze(-2))
            own = in_covariance[at]
            torch.mul(gradient[at], kernel, out=own)
            own.diagonal(dim1=-2, dim2=-1).zero_()
            both = (gradient[at] + gradient[at].mT).mul_(covariance[at])
            both.diagonal(dim1=-2, dim2=-1).zero_()
            in_log[at] = -(both * change).sum(-1)
            along = both @ gain[at].unsqueeze(-1)
            both.mul_(remainder)
            across = (both * parts.d) @ u[at].unsqueeze(-1)
            in_u[at] = steep[at] * along.squeeze(-1) + across.squeeze(-1) - 2 * u[at] * both.mul_(parts.b).sum(-1)
        in_variance = torch.where(v > TINY, (in_log - u * in_u) / (2 * v.clamp(min=TINY)), 0)
        diagonal = gradient.diagonal(dim1=-2, dim2=-1) if ctx.needs_input_grad[3] else None
        return in_covariance, in_u / s, in_variance, diagonal, None


class _Parts(NamedTuple):
    """Of the remainder Q, [example, n, n]."""

    r: Tensor
    t: Tensor
    b: Tensor
    d: Tensor
    squares: Tensor
    product: Tensor
    exponent: Tensor
    remainder: Tensor


def _parts(covariance: Tensor, inverse: Tensor, u: Tensor) -> _Parts:
    """A / r, b and d / r are even in r and flat at 0: below a size where they
    lose digits they are taken there.
    """
    r = (covariance * inverse.unsqueeze(-1)).mul_(inverse.unsqueeze(-2)).clamp_(-_CLOSEST, _CLOSEST)
    size = r.abs().clamp_(min=torch.finfo(r.dtype).eps ** 0.25)
    t = torch.addcmul(size.new_ones(()), size, size, value=-1).sqrt_()
    angle = size.asin().div_(size)
    above = (t + 1).reciprocal_()
    a = angle - above  # A / r
    b = above.div_(a).mul_(0.5)
    d = angle.sub_(1).div_(size.square_().mul_(a)).mul_(r)
    squares = u.square().unsqueeze(-1) + u.square().unsqueeze(-2)
    product = u.unsqueeze(-1) * u.unsqueeze(-2)
    exponent = (d * product).addcmul_(b, squares, value=-1)
    remainder = exponent.exp().mul_(a.mul_(r)).mul_(0.5 / math.pi)
    return _Parts(r, t, b, d, squares, product, exponent, remainder)


def blocks(covariance: Tensor) -> Iterator[slice]:
    """Of examples, [example, n, n]: dozens of passes over a large tensor would
    be the memory's time.
    """
    rows, n, _ = covariance.shape
    size = max(_BLOCK // n**2, 1) if covariance.device.type == "cpu" else max(rows, 1)
    return (slice(start, start + size) for start in range(0, rows, size))


@covariance_rule(F.relu, torch.relu, Tensor.relu)
def _relu(input: JointMoments, inplace: bool = False) -> JointMoments:
    return rectified(input)


@covariance_rule(F.leaky_relu)
def _leaky_relu(input: JointMoments, negative_slope: float = 0.01, inplace: bool = False) -> JointMoments:
    return rectified(input, negative_slope)


@covariance_rule(torch.abs, Tensor.abs, Tensor.__abs__)
def _abs(input: JointMoments) -> JointMoments:
    return rectified(input, -1.0)
