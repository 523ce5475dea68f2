"""Covariances through any elementwise function: to first order, or exactly where that is known."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.activations import TINY
from bayesnn.moments.clipping import clip_moments
from bayesnn.moments.joint import JointMoments, covariance_rule
from bayesnn.moments.joint_activations import rectified
from bayesnn.moments.table import MOMENT_RULES
from bayesnn.moments.value import Moments


def first_order(x: JointMoments, found: Moments, slope: Tensor) -> JointMoments:
    """Means and variances as found, covariances Cov(f(x_i), f(x_j)) ~ E[f'(x_i)] E[f'(x_j)]
    Cov(x_i, x_j).

    It is the first term of the expansion sum_k C_ij^k / k! E[f^(k)(x_i)] E[f^(k)(x_j)] (Price's
    theorem), exact for linear f and right in the limit of small correlations. With exact variances
    the matrix stays positive semi-definite, since all that is left out is.

    Args:
        x: [..., n].
        found: means and variances of f(x), [..., n].
        slope: E[f'(x)], which is also the derivative of E[f(x)] by the mean of x, [..., n].

    Reference: Price (1958), A useful theorem for nonlinear devices having Gaussian inputs.

    >>> x = JointMoments(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    >>> first_order(x, Moments(torch.zeros(2), torch.ones(2)), 2 * torch.ones(2)).covariance
    tensor([[1., 2.],
            [2., 1.]])
    """
    covariance = x.covariance * slope.unsqueeze(-1) * slope.unsqueeze(-2)
    whole = torch.diagonal_scatter(covariance, found.variance, dim1=-2, dim2=-1)
    return JointMoments(found.loc, whole, found.variance)


@covariance_rule(F.relu6)
def _relu6(input: JointMoments, inplace: bool = False) -> JointMoments:
    return _clipped(input, 0.0, 6.0)


@covariance_rule(F.hardtanh)
def _hardtanh(input: JointMoments, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> JointMoments:
    return _clipped(input, min_val, max_val)


@covariance_rule(F.hardsigmoid)
def _hardsigmoid(input: JointMoments, inplace: bool = False) -> Any:
    return _clipped(input / 6 + 0.5, 0.0, 1.0)  # type: ignore[arg-type]


@covariance_rule(torch.clamp, torch.clip, Tensor.clamp, Tensor.clip)
def _clamp(input: JointMoments, min: float | None = None, max: float | None = None) -> Any:
    x: Any = input
    if max is None and min is not None:
        return rectified(x - min) + min
    if min is None and max is not None:
        return max - rectified(max - x)
    assert min is not None
    assert max is not None
    return _clipped(x, min, max)


def _clipped(x: JointMoments, low: float, high: float) -> Any:
    """To first order; as a ReLU where the upper bound is out of reach."""
    if bool(high - x.loc.amax() > 10 * x.variance.amax().sqrt()):
        return rectified(x - low) + low  # type: ignore[arg-type]
    s = x.variance.clamp(min=TINY).sqrt()
    slope = torch.special.ndtr((x.loc - low) / s) - torch.special.ndtr((x.loc - high) / s)
    return first_order(x, Moments(*clip_moments(x.loc, x.variance, low, high)), slope)


@covariance_rule(torch.exp, Tensor.exp)
def _exp(input: JointMoments) -> JointMoments:
    """Log-normal: exact."""
    loc = (input.loc + input.variance / 2).exp()
    return JointMoments(loc, input.covariance.expm1() * loc.unsqueeze(-1) * loc.unsqueeze(-2))


@covariance_rule(torch.square, Tensor.square)
def _square(input: JointMoments) -> JointMoments:
    """Exact: 2 C_ij^2 + 4 m_i m_j C_ij."""
    m, c = input.loc, input.covariance
    return JointMoments(m.square() + input.variance, 2 * c * (c + 2 * m.unsqueeze(-1) * m.unsqueeze(-2)))


@covariance_rule(torch.pow, Tensor.pow, Tensor.__pow__)
def _pow(input: Any, exponent: Any) -> Any:
    return (
        _square(input)
        if isinstance(exponent, (int, float)) and exponent == 2
        else MOMENT_RULES[torch.pow](input, exponent)
    )
