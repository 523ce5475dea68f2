"""Operations that move entries without changing them: the same for means and variances."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.table import moment_rule
from bayesnn.moments.value import Moments, loc_of, variance_of


def both_moments(function: Any) -> Callable[..., Any]:
    """The rule of a function that only moves entries: it is applied to means and to variances.

    >>> both_moments(torch.flip)(Moments(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])), (0,))
    Moments(loc=tensor([2., 1.]), variance=tensor([4., 3.]))
    """

    def rule(x: Any, *args: Any, **kwargs: Any) -> Any:
        args = tuple(map(loc_of, args))  # of view_as, type_as
        if not isinstance(x, Moments):
            return function(x, *args, **kwargs)
        locs, variances = function(x.loc, *args, **kwargs), function(x.variance, *args, **kwargs)
        distinct = getattr(function, "__name__", "") in _DISTINCT.split()
        if isinstance(locs, Tensor):
            return x.viewed(locs, variances, lambda places: function(places, *args, **kwargs), distinct=distinct)

        def part(places: Tensor, which: int) -> Tensor:
            return function(places, *args, **kwargs)[which]

        each = enumerate(zip(locs, variances, strict=True))
        return type(locs)(x.viewed(m, v, partial(part, which=i), distinct=distinct) for i, (m, v) in each)

    rule.moves = True  # type: ignore[attr-defined]  # of a parameter it is no use yet
    return rule


MOVES = (
    "flatten unflatten reshape view view_as reshape_as permute transpose swapaxes movedim moveaxis squeeze unsqueeze "
    "chunk split tensor_split unbind narrow select expand expand_as broadcast_to repeat flip roll contiguous clone "
    "index_select tile t unfold to float double cpu cuda type_as __getitem__ repeat_interleave adjoint diagonal "
    "gather"
)
_DISTINCT = (
    "flatten unflatten reshape view view_as reshape_as permute transpose swapaxes movedim moveaxis squeeze unsqueeze "
    "chunk split tensor_split unbind narrow select flip roll contiguous clone t to float double cpu cuda type_as "
    "adjoint diagonal detach"
)
"""Those that have no entry twice."""

_function: Any
for _name in MOVES.split():
    for _owner in (torch, Tensor):
        _function = getattr(_owner, _name, None)
        if callable(_function):  # torch.float is a type of numbers
            moment_rule(_function)(both_moments(_function))
for _function in (F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle, F.unfold):
    moment_rule(_function)(both_moments(_function))


def _transposed(name: str) -> Callable[..., Moments]:
    def move(x: Tensor) -> Tensor:
        return getattr(x, name)

    return lambda x: x.viewed(move(x.loc), move(x.variance), move, distinct=True)


for _name in ("T", "mT"):
    moment_rule(_name)(_transposed(_name))


def _joined(function: Any) -> Callable[..., Moments]:
    def rule(tensors: Any, *args: Any, **kwargs: Any) -> Moments:
        locs = [loc_of(value) for value in tensors]
        variances = [variance_of(value) for value in tensors]
        full = [torch.zeros_like(m) if v is None else v for m, v in zip(locs, variances, strict=True)]
        return Moments(function(locs, *args, **kwargs), function(full, *args, **kwargs))

    return rule


for _function in (torch.cat, torch.concat, torch.concatenate, torch.stack, torch.hstack, torch.vstack):
    moment_rule(_function)(_joined(_function))


@moment_rule(F.pad)
def _pad(input: Moments, pad: Any, mode: str = "constant", value: float | None = None) -> Moments:
    """What is added is certain."""
    return Moments(F.pad(input.loc, pad, mode, value), F.pad(input.variance, pad, mode))


def size_rule(function: Any) -> Callable[..., Tensor]:
    """The rule of a function that takes the shape, type and device of its argument alone."""

    def rule(x: Moments, *args: Any, **kwargs: Any) -> Tensor:
        return function(x.loc, *args, **kwargs)

    rule.moves = rule.sizes = True  # type: ignore[attr-defined]
    return rule


for _function in (Tensor.new_zeros, Tensor.new_ones, Tensor.new_tensor, Tensor.new_full, Tensor.new_empty):
    moment_rule(_function)(size_rule(_function))
for _function in (torch.zeros_like, torch.ones_like, torch.randn_like, torch.rand_like, torch.full_like):
    moment_rule(_function)(size_rule(_function))


moment_rule(Tensor.detach)(both_moments(Tensor.detach))
