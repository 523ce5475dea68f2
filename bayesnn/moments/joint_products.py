"""Linear layers with covariances: where they arise, and what W C W^T costs."""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bayesnn.functional.memory import require
from bayesnn.moments.joint import JointMoments, covariance_rule, no_covariances
from bayesnn.moments.joint_activations import blocks
from bayesnn.moments.products import product_moments, scaled_addmm
from bayesnn.moments.table import MOMENT_RULES, Rule
from bayesnn.moments.value import Moments, Multiplicative, loc_of, variance_of

_LARGE = 2**28  # bytes, from which on the free memory is asked for


@covariance_rule(F.linear)
def dense_moments(input: Any, weight: Any, bias: Any = None) -> Moments:
    """E and Cov of W x + b for independent weights, biases and x with means m and covariance C:
    exact.

        mean = W m + b,    Cov = W C W^T + diag( S (m^2 + diag C) + Var b )

    with S the variances of the weights. Of a certain x the outputs are independent, and stay
    `Moments`; of independent entries C is a diagonal matrix.

    Args:
        input: a tensor, `Moments` or `JointMoments`, [..., in].
        weight: [out, in], certain or random.
        bias: [out], certain or random.

    Raises:
        MemoryError: covariances that do not fit into the free memory.

    Reference: Wu, Nowozin, Meeds, Turner, Hernández-Lobato, Gaunt (2019), Deterministic
    variational inference for robust Bayesian neural networks.

    >>> x = Moments(torch.ones(1, 1), torch.ones(1, 1))
    >>> dense_moments(x, torch.ones(2, 1)).covariance
    tensor([[[1., 1.],
             [1., 1.]]])
    """
    if not isinstance(input, Moments) or input.is_weight:
        return product_moments(F.linear, input, weight, bias)
    matrix = loc_of(weight)
    loc = F.linear(input.loc, matrix, loc_of(bias))
    rows, units = prod(loc.shape[:-1]), loc.shape[-1]
    needed = rows * units**2 * loc.element_size()
    if needed > _LARGE and loc.device.type == "cpu":
        what = f"the covariances of {rows} examples with {units} units"
        require(needed, loc.device, what, "use smaller batches or chunks, or leave them out, covariance=False")
    noise = _noise(input, weight, bias).reshape(rows, units)
    inner = input.variance.reshape(rows, -1)
    if isinstance(input, JointMoments):
        covariance, variance = _Sandwich.apply(
            matrix, input.covariance.reshape(rows, *input.covariance.shape[-2:]), noise
        )
    else:
        covariance, variance = _OfIndependent.apply(matrix, inner, noise)
    return JointMoments(loc, covariance.reshape(*loc.shape, units), variance.reshape(loc.shape))


def _noise(x: Moments, weight: Any, bias: Any) -> Tensor:
    """S (m^2 + v) + Var b: what the layer's own weights add to the variance of every output."""
    shift = variance_of(bias)
    if not isinstance(weight, Moments):
        if shift is None:
            return x.loc.new_zeros((*x.loc.shape[:-1], weight.shape[0]))
        return shift.expand(*x.loc.shape[:-1], weight.shape[0])
    second = torch.addcmul(x.variance, x.loc, x.loc)
    if isinstance(weight, Multiplicative) and (weight.axis, weight.groups) == (1, 1):
        return F.linear(second * weight.noise, weight.squared, shift)
    return F.linear(second, weight.variance, shift)


class _Sandwich(torch.autograd.Function):
    """(W C W^T + diag(noise), its diagonal), [batch, out, out], of symmetric C [batch, in, in]."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, covariance: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        half = covariance @ matrix.mT
        ctx.save_for_backward(matrix, half)
        out = noise.new_empty((*noise.shape, noise.shape[-1]))
        for at in blocks(out):
            torch.matmul(matrix, half[at], out=out[at])
        return _with_noise(out, noise)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, of_variance: Tensor) -> Any:
        matrix, half = ctx.saved_tensors
        in_matrix, in_noise = torch.zeros_like(matrix), torch.empty_like(of_variance)
        in_covariance = half.new_empty((*half.shape[:-1], half.shape[-2]))
        for at in blocks(gradient):
            total = _symmetric(gradient[at], of_variance[at], in_noise[at])
            in_matrix += (total @ half[at].mT).sum(0)
            torch.matmul(matrix.mT @ total, matrix, out=in_covariance[at])
        return in_matrix.mul_(2), in_covariance, in_noise


class _OfIndependent(torch.autograd.Function):
    """(W diag(v) W^T + diag(noise), its diagonal), [batch, out, out], of variances v [batch, in]:
    half the products.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, variance: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(matrix, variance)
        out = noise.new_empty((*noise.shape, noise.shape[-1]))
        for at in blocks(out):
            torch.matmul(matrix * variance[at].unsqueeze(-2), matrix.mT, out=out[at])
        return _with_noise(out, noise)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, of_variance: Tensor) -> Any:
        matrix, variance = ctx.saved_tensors
        in_matrix, in_variance, in_noise = map(torch.zeros_like, (matrix, variance, of_variance))
        for at in blocks(gradient):
            product = _symmetric(gradient[at], of_variance[at], in_noise[at]) @ matrix
            torch.sum(product * matrix, -2, out=in_variance[at])
            in_matrix += product.mul_(variance[at].unsqueeze(-2)).sum(0)
        return in_matrix.mul_(2), in_variance, in_noise


def _with_noise(covariance: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    diagonal += noise
    return covariance, diagonal.clone()


def _symmetric(gradient: Tensor, of_variance: Tensor, diagonal: Tensor) -> Tensor:
    """The gradient in a symmetric matrix whose diagonal is a second output; its
    own diagonal is noted.
    """
    total = torch.add(gradient, gradient.mT).mul_(0.5)
    own = total.diagonal(dim1=-2, dim2=-1)
    own += of_variance
    diagonal.copy_(own)
    return total


@covariance_rule(torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__, Tensor.__rmatmul__)
def _matmul(left: Any, right: Any) -> Moments:
    """x @ W with a matrix W, certain or a weight of the network."""
    weight = not isinstance(right, Moments) or right.is_weight
    if isinstance(left, Moments) and not left.is_weight and weight and loc_of(right).dim() == 2:
        return dense_moments(left, _transposed(right))
    if any(isinstance(factor, JointMoments) for factor in (left, right)):
        raise no_covariances("matmul", "it knows x @ W with a certain matrix or a weight W")
    return MOMENT_RULES[torch.matmul](left, right)


@covariance_rule(torch.addmm, Tensor.addmm)
def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Moments:
    shift, left = scaled_addmm(input, mat1, beta, alpha)
    return dense_moments(left, _transposed(mat2), shift)


def _transposed(weight: Any) -> Any:
    return Moments(weight.loc.mT, weight.variance.mT) if isinstance(weight, Moments) else weight.mT


BEGINNINGS: dict[Any, Rule] = {F.linear: dense_moments, torch.addmm: _addmm}
"""Rules that make `JointMoments` of `Moments`: covariances begin at the first
linear layer with random inputs.
"""
for _function in (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__, Tensor.__rmatmul__):
    BEGINNINGS[_function] = _matmul
