"""Sums, multiples and normalisations with covariances."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.arithmetic import scaled
from bayesnn.moments.joint import JointMoments, covariance_rule, no_covariances
from bayesnn.moments.table import MOMENT_RULES
from bayesnn.moments.value import Moments, loc_of, variance_of


def covariance_of(value: Any) -> Tensor | None:
    """Of the last axis, [..., n, n]; of independent entries a diagonal matrix,
    None of what is certain.
    """
    if isinstance(value, JointMoments):
        return value.covariance
    if not isinstance(value, Moments):
        return None
    return torch.diag_embed(value.variance.reshape(value.shape or (1,)))


@covariance_rule(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
def _add(input: Any, other: Any, *, alpha: float = 1) -> JointMoments:
    """Covariances of independent terms add; one entry that is added to all
    units moves them together.
    """
    if input is other:
        return _mul(input, 1 + alpha)
    loc = torch.add(loc_of(input), loc_of(other), alpha=alpha)
    first, second = covariance_of(input), covariance_of(other)
    if first is not None and second is not None:
        return JointMoments(loc, torch.add(first, second, alpha=alpha**2))
    covariance = first if second is None else second * alpha**2
    assert covariance is not None
    n = loc.shape[-1]
    variance = variance_of(input if second is None else other)
    same = loc.shape == covariance.shape[:-1] and alpha == 1
    return JointMoments(loc, covariance.expand(*loc.shape, n), variance if same else None)


@covariance_rule(torch.sub, Tensor.sub, Tensor.__sub__, torch.subtract)
def _sub(input: Any, other: Any, *, alpha: float = 1) -> JointMoments:
    return _add(input, other, alpha=-alpha)


@covariance_rule(Tensor.__rsub__, torch.rsub)
def _rsub(input: Any, other: Any) -> JointMoments:
    return _add(other if isinstance(other, Tensor) else torch.as_tensor(other).to(input.loc), input, alpha=-1)


@covariance_rule(torch.neg, Tensor.neg, Tensor.__neg__)
def _neg(input: JointMoments) -> JointMoments:
    return JointMoments(-input.loc, input.covariance, input.variance)


@covariance_rule(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply)
def _mul(input: Any, other: Any) -> JointMoments:
    """c_i c_j C_ij; a weight of the network adds its variance times m^2 + v to the diagonal."""
    random, factor = (input, other) if isinstance(input, JointMoments) and not input.is_weight else (other, input)
    if isinstance(factor, Moments) and not factor.is_weight:
        return MOMENT_RULES[torch.mul](input, other)  # refuses it
    loc, by = random.loc * loc_of(factor), loc_of(factor)
    if isinstance(by, Tensor):
        by = by.expand(torch.broadcast_shapes(by.shape, loc.shape[-1:])) if by.dim() else by.expand(loc.shape[-1:])
        covariance = random.covariance * by.unsqueeze(-1) * by.unsqueeze(-2)
    else:
        covariance = random.covariance * by**2
    if not isinstance(factor, Moments):
        return JointMoments(loc, covariance)
    variance = scaled(Moments(random.loc, random.variance), factor).variance
    return JointMoments(loc, torch.diagonal_scatter(covariance, variance, dim1=-2, dim2=-1), variance)


@covariance_rule(torch.div, Tensor.div, Tensor.__truediv__, torch.true_divide)
def _div(input: Any, other: Any) -> JointMoments:
    return MOMENT_RULES[torch.div](input, other) if isinstance(other, Moments) else _mul(input, 1 / other)


@covariance_rule(torch.sum, Tensor.sum, torch.mean, Tensor.mean)
def _sum(input: JointMoments, *args: Any, **kwargs: Any) -> None:
    raise no_covariances("a sum or mean", "a product with a vector, x @ ones, keeps them")


@covariance_rule(F.dropout)
def _dropout(input: JointMoments, p: float = 0.5, training: bool = True, inplace: bool = False) -> JointMoments:
    """In training, exact: means and covariances stay, variances become (v + p
    m^2) / (1 - p). Else nothing.
    """
    if not training or p == 0:
        return input
    found = MOMENT_RULES[F.dropout](Moments(input.loc, input.variance), p, training)
    covariance = input.covariance if p < 1 else torch.zeros_like(input.covariance)
    whole = torch.diagonal_scatter(covariance, found.variance, dim1=-2, dim2=-1)
    return JointMoments(found.loc, whole, found.variance)


@covariance_rule(F.batch_norm, torch.batch_norm)
def _batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> Any:  # fmt: skip
    """With running statistics: a multiple and a shift."""
    if training or running_var is None:
        raise no_covariances("batch_norm", "in training its statistics are those of a batch")
    return _affine((input - running_mean) / (running_var + eps).sqrt(), weight, bias)


@covariance_rule(F.layer_norm, torch.layer_norm)
def _layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    """(x_j - mean x) / spread, with the spread a constant at E[sum_j
    (x_j - mean x)^2 / n]: right to order 1 / n.
    """
    if len(normalized_shape) > 1:
        raise no_covariances("layer_norm", "it knows that of the last axis")
    n = input.shape[-1]
    centring = torch.eye(n, dtype=input.loc.dtype, device=input.loc.device) - 1 / n
    centred = F.linear(input, centring)
    spread = (centred.loc.square() + variance_of(centred)).mean(-1, keepdim=True) + eps  # type: ignore[attr-defined]
    return _affine(centred / spread.sqrt(), weight, bias)


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


for _identity in ("positive", "__pos__"):
    covariance_rule(getattr(Tensor, _identity))(lambda x: x)
