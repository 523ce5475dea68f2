"""Covariances of smooth functions of normal variables, by their expansion in the correlation."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesnn.moments.activations import TINY
from bayesnn.moments.joint import JointMoments
from bayesnn.moments.joint_activations import blocks
from bayesnn.moments.value import Moments


def expanded(x: JointMoments, found: Moments, coefficients: list[Tensor]) -> JointMoments:
    """Means and variances as found, covariances C_ij sum_{k <= K} r_ij^{k-1} / k! b_ik b_jk.

    b_k = E[f'(m + s z) He_{k-1}(z)] = s^{k-1} E[f^(k)(x)] with Hermite's polynomials He, so that
    it is the expansion sum_k C_ij^k / k! E[f^(k)(x_i)] E[f^(k)(x_j)] (Price, Mehler) with K terms.
    With exact variances the matrix stays positive semi-definite, since all that is left out is.

    Args:
        x: [..., n].
        found: means and variances of f(x), [..., n].
        coefficients: b_1, ..., b_K and two more for the derivatives, each [..., n], as constants.

    References: Mehler (1866); Price (1958), A useful theorem for nonlinear devices having Gaussian
    inputs.
    """
    n = x.shape[-1]
    covariance, *rows = (x.covariance.reshape(-1, n, n), x.loc.reshape(-1, n), x.variance.reshape(-1, n))
    terms = [coefficient.reshape(-1, n) for coefficient in coefficients]
    found_covariance = _Expanded.apply(covariance, *rows, found.variance.reshape(-1, n), *terms)
    return JointMoments(found.loc, found_covariance.reshape(x.covariance.shape), found.variance)


class _Expanded(torch.autograd.Function):
    """Off the diagonal the sum, and `result` on it."""

    @staticmethod
    def forward(ctx: Any, covariance: Tensor, m: Tensor, v: Tensor, result: Tensor, *b: Tensor) -> Tensor:
        ctx.save_for_backward(covariance, v, *b)
        inverse, out = v.clamp(min=TINY).rsqrt(), torch.empty_like(covariance)
        for at in blocks(covariance):
            r = _correlation(covariance[at], inverse[at])
            kernel = torch.zeros_like(r)
            for k in range(len(b) - 2, 0, -1):
                kernel.mul_(r).add_(_outer(b[k - 1][at]), alpha=1 / math.factorial(k))
            torch.mul(kernel, covariance[at], out=out[at])
        out.diagonal(dim1=-2, dim2=-1).copy_(result)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """With d E[f^(k)] / dm = b_{k+1} / s^k and d E[f^(k)] / dv = b_{k+2} / (2 s^{k+1})."""
        covariance, v, *b = ctx.saved_tensors
        inverse = v.clamp(min=TINY).rsqrt()
        in_covariance, in_m, in_log = torch.empty_like(covariance), torch.zeros_like(v), torch.zeros_like(v)
        for at in blocks(covariance):
            r = _correlation(covariance[at], inverse[at])
            both = (gradient[at] + gradient[at].mT).mul_(covariance[at])
            both.diagonal(dim1=-2, dim2=-1).zero_()
            steep, power = torch.zeros_like(r), both  # power: both r^{k-1}
            for k in range(len(b) - 2, 0, -1):
                steep.mul_(r).add_(_outer(b[k - 1][at]), alpha=1 / math.factorial(k - 1))
            for k in range(1, len(b) - 1):
                own = b[k - 1][at]
                in_b = (power @ own.unsqueeze(-1)).squeeze(-1) / math.factorial(k)
                in_m[at] += in_b * b[k][at]
                in_log[at] += in_b * b[k + 1][at]
                power = power * r
            torch.mul(gradient[at], steep, out=in_covariance[at])
            in_covariance[at].diagonal(dim1=-2, dim2=-1).zero_()
        in_variance = torch.where(v > TINY, in_log / (2 * v.clamp(min=TINY)), 0)
        return in_covariance, in_m * inverse, in_variance, gradient.diagonal(dim1=-2, dim2=-1), *(None,) * len(b)


def _correlation(covariance: Tensor, inverse: Tensor) -> Tensor:
    return (covariance * inverse.unsqueeze(-1)).mul_(inverse.unsqueeze(-2)).clamp_(-1, 1)


def _outer(values: Tensor) -> Tensor:
    return values.unsqueeze(-1) * values.unsqueeze(-2)
