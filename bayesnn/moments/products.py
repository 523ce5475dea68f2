"""Layers that multiply their input by a weight: linear, convolutions, matrix products."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.table import dispatch, moment_rule
from bayesnn.moments.value import Moments, Multiplicative, loc_of, variance_of

_Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def product_moments(
    product: _Product, x: Any, weight: Any, bias: Any = None, *, axis: int = 1, groups: int = 1, channel: int = -1
) -> Moments:
    """E and Var of sum_j w_ij x_j + b_i for independent w, x and b, for any operation linear in
    both.

        mean_i = sum_j W_ij m_j + b_i,
            var_i = sum_j [ S_ij (m_j^2 + v_j) + W_ij^2 v_j ] + Var b_i

    With `Multiplicative` weights the sum is sum_j W_ij^2 [(1 + a_j) v_j + a_j m_j^2], one product
    in place of two. Outputs that share a weight (positions of a convolution) have the right
    variances; their covariance is lost.

    Args:
        product: (x, weight, bias) -> output.
        x: a tensor or `Moments`, as the two that follow.
        weight: what multiplies it.
        bias: what is added.
        axis: of the inputs in a `Multiplicative` weight of this operation.
        groups: of a convolution.
        channel: the input's axis of features.

    Reference: Schmitt, Roth (2021), Sampling-free variational inference for neural networks with
    multiplicative activation noise.

    >>> W, a = torch.tensor([[0.5, -1.0]]), torch.tensor([0.1, 0.2])
    >>> product_moments(F.linear, torch.tensor([[1.0, -0.5]]), Multiplicative(W, a, W**2))
    Moments(loc=tensor([[1.]]), variance=tensor([[0.0750]]))
    """
    loc, variance, matrix = loc_of(x), variance_of(x), loc_of(weight)
    out = product(loc, matrix, loc_of(bias))
    shift = variance_of(bias)
    if isinstance(weight, Multiplicative) and (weight.axis, weight.groups) == (axis, groups):
        noise = weight.noise.reshape(-1, *(1,) * (-1 - channel))
        return Moments(out, product(_noisy(loc, variance, noise), weight.squared, shift))
    if not isinstance(weight, Moments):
        if variance is None:  # the bias alone is random
            assert shift is not None
            return Moments(out, product(torch.zeros_like(loc), matrix, shift))
        return Moments(out, product(variance, matrix.square(), shift))
    second = loc.square() if variance is None else loc.square() + variance
    total = product(second, weight.variance, shift)
    return Moments(out, total if variance is None else total + product(variance, matrix.square(), None))


def _noisy(loc: Tensor, variance: Tensor | None, noise: Tensor) -> Tensor:
    """(1 + a) v + a m^2."""
    second = loc.square()
    return second * noise if variance is None else torch.addcmul(variance, second + variance, noise)


@moment_rule(F.linear)
def _linear(input: Any, weight: Any, bias: Any = None) -> Moments:
    return product_moments(F.linear, input, weight, bias)


@moment_rule(F.bilinear)
def _bilinear(*args: Any, **kwargs: Any) -> Moments:
    raise NotImplementedError(
        "moments: bilinear layers multiply two inputs; take a subset behind them, or use MeanField"
    )


def _convolution(function: Any) -> Callable[..., Moments]:
    def rule(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Moments:
        def product(x: Tensor, matrix: Tensor, shift: Tensor | None) -> Tensor:
            return function(x, matrix, shift, stride, padding, dilation, groups)

        return product_moments(product, input, weight, bias, groups=groups, channel=1 - loc_of(weight).dim())

    return rule


def _transposed(function: Any) -> Callable[..., Moments]:
    def rule(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Moments:
        def product(x: Tensor, matrix: Tensor, shift: Tensor | None) -> Tensor:
            return function(x, matrix, shift, stride, padding, output_padding, groups, dilation)

        return product_moments(product, input, weight, bias, axis=0, groups=groups, channel=1 - loc_of(weight).dim())

    return rule


_function: Any
for _function in (F.conv1d, F.conv2d, F.conv3d):
    moment_rule(_function)(_convolution(_function))
for _function in (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d):
    moment_rule(_function)(_transposed(_function))


@moment_rule(torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)
@moment_rule(torch.bmm, Tensor.bmm, torch.mv, Tensor.mv)
def _matmul(left: Any, right: Any) -> Moments:
    """Where one factor is certain, or both are a layer's input and a weight of the network."""
    return bilinear_moments(torch.matmul, left, right)


def bilinear_moments(product: Callable[[Tensor, Tensor], Tensor], left: Any, right: Any) -> Moments:
    """Of sums of products in which no random entry is twice; two random factors
    are an input and a weight.
    """
    weight = any(isinstance(factor, Moments) and factor.is_weight for factor in (left, right))
    if isinstance(left, Moments) and isinstance(right, Moments) and not weight:
        return dispatch(_two_random_matmul, (left, right), {})
    return product_moments(lambda a, b, _: product(a, b), left, right, axis=-1)


@moment_rule(torch.tensordot)
def _tensordot(a: Any, b: Any, dims: Any = 2) -> Moments:
    return bilinear_moments(lambda left, right: torch.tensordot(left, right, dims), a, b)


@moment_rule(Tensor.__rmatmul__)
def _rmatmul(right: Any, left: Any) -> Moments:
    return _matmul(torch.as_tensor(left), right)


def _two_random_matmul(left: Tensor, right: Tensor) -> Tensor:
    """Without a rule: two factors that may depend on each other."""
    return left @ right


_two_random_matmul.__name__ = "matmul"


@moment_rule(torch.addmm, Tensor.addmm)
def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Moments:
    shift, left = scaled_addmm(input, mat1, beta, alpha)
    return product_moments(lambda a, b, c: a @ b if c is None else a @ b + c, left, mat2, shift, axis=-1)


def scaled_addmm(input: Any, mat1: Any, beta: float, alpha: float) -> tuple[Any, Any]:
    """beta input, None for a beta of 0, and alpha mat1."""
    shift = None if beta == 0 else input if beta == 1 else input * beta
    return shift, mat1 if alpha == 1 else mat1 * alpha
