"""Sums and multiples: means add, variances of independent terms add."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.table import MOMENT_RULES, dispatch, moment_rule
from bayesnn.moments.value import Moments, loc_of, variance_of
from bayesnn.moments.words import inflation, reduced_axes


@moment_rule(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
def _add(input: Any, other: Any, *, alpha: float = 1) -> Moments:
    if input is other:
        return _mul(input, 1 + alpha)
    loc = torch.add(loc_of(input), loc_of(other), alpha=alpha)
    first, second = variance_of(input), variance_of(other)
    if second is None or first is None:
        certain = first if second is None else second * alpha**2
        assert certain is not None
        return Moments(loc, certain.expand_as(loc))
    return Moments(loc, torch.add(first, second, alpha=alpha**2))


@moment_rule(torch.sub, Tensor.sub, Tensor.__sub__, torch.subtract)
def _sub(input: Any, other: Any, *, alpha: float = 1) -> Moments:
    return _add(input, other, alpha=-alpha)


@moment_rule(Tensor.__rsub__, torch.rsub)
def _rsub(input: Any, other: Any, *, alpha: float = 1) -> Moments:
    return _add(other if isinstance(other, Tensor) else torch.as_tensor(other).to(input.loc), input, alpha=-alpha)


@moment_rule(torch.neg, Tensor.neg, Tensor.__neg__)
def _neg(input: Moments) -> Moments:
    return Moments(-input.loc, input.variance)


@moment_rule(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply)
def _mul(input: Any, other: Any) -> Moments:
    """c x; with a weight of the network, independent of x, Var = W^2 v + S (m^2 + v)."""
    if isinstance(input, Moments) and isinstance(other, Moments):
        if input is other or not (input.is_weight or other.is_weight):
            return dispatch(_product_of_two, (input, other), {})
        return scaled(input, other)
    random, factor = (input, other) if isinstance(input, Moments) else (other, input)
    loc = random.loc * factor
    return Moments(loc, (random.variance * _square(factor)).expand_as(loc))


def scaled(x: Any, weight: Any) -> Moments:
    """Elementwise w x for independent w and x."""
    m, v, scale, spread = loc_of(x), variance_of(x), loc_of(weight), variance_of(weight)
    variance = 0 if v is None else scale.square() * v
    if spread is not None:
        variance = variance + spread * (m.square() if v is None else m.square() + v)
    loc = m * scale
    return Moments(loc, torch.as_tensor(variance).expand_as(loc))


def _product_of_two(left: Tensor, right: Tensor) -> Tensor:
    """Without a rule: two factors that may depend on each other."""
    return left * right


_product_of_two.__name__ = "mul"


@moment_rule(torch.div, Tensor.div, Tensor.__truediv__, torch.true_divide)
def _div(input: Any, other: Any) -> Moments:
    if isinstance(other, Moments):
        return dispatch(_quotient, (input, other), {})
    loc = input.loc / other
    return Moments(loc, (input.variance / _square(other)).expand_as(loc))


def _quotient(left: Tensor, right: Tensor) -> Tensor:
    """Without a rule: 1 / x of a normal x has no mean."""
    return left / right


_quotient.__name__ = "div"


def _square(factor: Any) -> Any:
    return factor.square() if isinstance(factor, Tensor) else factor * factor


@moment_rule(torch.exp, Tensor.exp)
def _exp(input: Moments) -> Moments:
    """Log-normal: exact."""
    loc = (input.loc + input.variance / 2).exp()
    return Moments(loc, loc.square() * input.variance.expm1())


@moment_rule(torch.square, Tensor.square)
def _squared(input: Moments) -> Moments:
    """Exact: m^2 + v and 2 v^2 + 4 m^2 v."""
    square = input.loc.square()
    return Moments(square + input.variance, 2 * input.variance * (input.variance + 2 * square))


@moment_rule(torch.pow, Tensor.pow, Tensor.__pow__)
def _pow(input: Any, exponent: Any) -> Moments:
    if isinstance(exponent, (int, float)) and exponent == 2:
        return _squared(input)
    return dispatch(_power, (input, exponent), {})


def _power(left: Tensor, right: Tensor) -> Tensor:
    """Without a rule, but for squares."""
    return left**right


_power.__name__ = "pow"


@moment_rule(torch.sum, Tensor.sum)
def _sum(input: Moments, *args: Any, **kwargs: Any) -> Moments:
    return Moments(torch.sum(input.loc, *args, **kwargs), torch.sum(_spread(input, args, kwargs), *args, **kwargs))


@moment_rule(torch.mean, Tensor.mean)
def _mean(input: Moments, *args: Any, **kwargs: Any) -> Moments:
    """Independent entries: the variance of a mean of n is their mean over n."""
    loc = torch.mean(input.loc, *args, **kwargs)
    entries = input.loc.numel() / max(loc.numel(), 1)
    return Moments(loc, torch.mean(_spread(input, args, kwargs), *args, **kwargs) / entries)


def _spread(x: Moments, args: Any, kwargs: Any) -> Tensor:
    """What a sum adds: variances, times the number of positions that are the
    same random vector.
    """
    if x.words is None:
        return x.variance
    counts = inflation(x.words, reduced_axes(x.loc.dim(), args, kwargs))
    return x.variance * counts.reshape(*counts.shape, *(1,) * (x.loc.dim() - counts.dim()))


@moment_rule(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
def _dropout(input: Moments, p: float = 0.5, training: bool = True, inplace: bool = False) -> Moments:
    """In training, exact: the mean stays, Var = (v + p m^2) / (1 - p). Else nothing."""
    if not training or p == 0:
        return input
    if p >= 1:
        return Moments(torch.zeros_like(input.loc), torch.zeros_like(input.variance))
    return Moments(input.loc, (input.variance + p * input.loc.square()) / (1 - p))


for _identity in ("positive", "__pos__"):
    MOMENT_RULES[getattr(Tensor, _identity)] = lambda x: x
