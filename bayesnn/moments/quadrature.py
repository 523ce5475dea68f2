"""Moments of any smooth elementwise function, by one-dimensional quadrature."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.activations import Differentiated, takes_gradient
from bayesnn.moments.joint import JointMoments
from bayesnn.moments.joint_expansion import expanded
from bayesnn.moments.table import MOMENT_RULES
from bayesnn.moments.value import Moments

_ORDER = 4  # of covariances
_REACH = 5.8  # standard deviations: 7e-9 of the mass lies outside


def elementwise_moments(function: Callable[..., Tensor], nodes: int = 48) -> Callable[..., Moments]:
    """The rule of a smooth elementwise function: E f(x) and Var f(x), x ~ N(m, v), by the
    trapezoidal rule.

        E f ~ f(m) + sum_k w_k d_k,  Var f ~ sum_k w_k d_k^2 - (sum_k w_k d_k)^2,
            d_k = f(m + s z_k) - f(m)

    For analytic functions the rule converges exponentially in the number of nodes: 48 give tanh to
    1e-6 for standard deviations up to 3 and 3e-5 up to 4, a function with a kink to about 1e-3.
    Differences from f(m) keep all digits where v is small. It costs `nodes` evaluations, and as
    many of the derivative in training; derivatives in m and v are those of the sums. Of
    `JointMoments` it keeps covariances to fourth order in the correlations.

    Args:
        function: (tensor, *options) -> tensor, elementwise.
        nodes: an even number.

    >>> from bayesnn.moments import MOMENT_RULES
    >>> MOMENT_RULES[torch.sin] = elementwise_moments(torch.sin)
    >>> torch.sin(Moments(torch.tensor([0.5]), torch.tensor([1.0]))).loc          # sin(0.5) exp(-0.5)
    tensor([0.2908])
    """

    def rule(input: Moments, *args: Any, **kwargs: Any) -> Moments:
        kwargs.pop("inplace", None)
        of = partial(_applied, function, args, kwargs)
        found = Moments(*_quadrature(of, input.loc, input.variance, nodes))
        if not isinstance(input, JointMoments):
            return found
        return expanded(input, found, _coefficients(of, input.loc.detach(), input.variance.detach(), nodes))

    rule.elementwise = True  # type: ignore[attr-defined]  # it takes `JointMoments` too
    return rule


def _applied(function: Callable[..., Tensor], args: Any, kwargs: Any, x: Tensor) -> Tensor:
    return function(x, *args, **kwargs)


def _quadrature(f: Callable[[Tensor], Tensor], loc: Tensor, variance: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    differentiated = torch.is_grad_enabled() and takes_gradient(loc, variance)
    m, v = loc.detach(), variance.detach()
    s = v.clamp(min=1e-30).sqrt()
    centre = f(m)
    first, second = torch.zeros_like(m), torch.zeros_like(m)
    slopes = [torch.zeros_like(m) for _ in range(4 if differentiated else 0)]
    # in pairs, so that what is odd in z cancels exactly where s is 0
    for z, weight in _nodes(nodes):
        (up, d_up), (down, d_down) = (_value(f, m + sign * z * s, differentiated) for sign in (1, -1))
        up, down = up - centre, down - centre
        first += weight * (up + down)
        second += weight * (up.square() + down.square())
        if differentiated:
            slopes[0] += weight * (d_up + d_down)
            slopes[1] += (weight * z) * (d_up - d_down)
            slopes[2] += weight * (up * d_up + down * d_down)
            slopes[3] += (weight * z) * (up * d_up - down * d_down)
    mean, spread = centre + first, (second - first.square()).clamp_(min=0)
    if not differentiated:
        return mean, spread
    in_m, in_s, product_m, product_s = slopes
    variance_m, variance_s = 2 * (product_m - first * in_m), 2 * (product_s - first * in_s)
    return Differentiated.apply(loc, variance, mean, spread, in_m, in_s / (2 * s), variance_m, variance_s / (2 * s))


def _value(f: Callable[[Tensor], Tensor], x: Tensor, differentiated: bool) -> tuple[Tensor, Tensor]:
    """f and f'."""
    if not differentiated:
        return f(x), x
    with torch.enable_grad():
        value = f(x.requires_grad_())
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@torch.enable_grad()
def _coefficients(f: Callable[[Tensor], Tensor], m: Tensor, v: Tensor, nodes: int) -> list[Tensor]:
    """E[f'(m + s z) He_k(z)] for k up to the order of covariances, and one more
    for their derivatives.
    """
    s = v.clamp(min=1e-30).sqrt()
    sums = [torch.zeros_like(m) for _ in range(_ORDER + 2)]
    for z, weight in _nodes(nodes):
        up, down = (_value(f, m + sign * z * s, differentiated=True)[1] for sign in (1, -1))
        parts = (up + down, up - down)
        previous, hermite = 0.0, 1.0
        for k, total in enumerate(sums):
            total.add_(parts[k % 2], alpha=weight * hermite)
            previous, hermite = hermite, z * hermite - k * previous
    return sums


@cache
def _nodes(count: int) -> list[tuple[float, float]]:
    """(z, weight) for z > 0; weights of all nodes add to 1."""
    step = 2 * _REACH / count
    half = [(step * (k + 0.5), math.exp(-0.5 * (step * (k + 0.5)) ** 2)) for k in range(count // 2)]
    total = 2 * sum(weight for _, weight in half)
    return [(z, weight / total) for z, weight in half]


for _functions in (
    (torch.tanh, Tensor.tanh, F.tanh),
    (torch.sigmoid, Tensor.sigmoid, F.sigmoid),
    (F.gelu,),
    (F.softplus,),
    (F.silu,),
    (F.mish,),
    (F.logsigmoid,),
    (F.elu,),
    (F.celu,),
    (F.selu,),
    (F.hardswish,),
    (F.softsign,),
    (torch.erf, Tensor.erf),
    (torch.sin, Tensor.sin),
    (torch.cos, Tensor.cos),
):
    for _function in _functions:
        MOMENT_RULES[_function] = elementwise_moments(_function)
