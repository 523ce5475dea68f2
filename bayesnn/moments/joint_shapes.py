"""Operations that move the units of an example, with their covariances."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.joint import JointMoments, covariance_rule, no_covariances
from bayesnn.moments.joint_arithmetic import covariance_of
from bayesnn.moments.shapes import MOVES, size_rule
from bayesnn.moments.value import Moments, loc_of

_SAME = "to float double cpu cuda type_as contiguous clone detach"
"""Functions that leave every entry where it is."""


def moved(function: Any) -> Callable[..., Any]:
    """The rule of a function that only moves entries: units keep their covariances wherever they
    go together.

    Each row of the result, along its last axis, has to come from one example, with all that is
    left of that example. One entry of each example is left where the axis of units was taken away:
    these are independent, and `Moments`.

    >>> x = JointMoments(torch.zeros(1, 2), torch.tensor([[[1.0, 0.5], [0.5, 2.0]]]))
    >>> moved(torch.flip)(x, (1,)).covariance
    tensor([[[2.0000, 0.5000],
             [0.5000, 1.0000]]])
    """

    def rule(x: JointMoments, *args: Any, **kwargs: Any) -> Any:
        others = [loc_of(value) for value in args]
        locs = function(x.loc, *others, **kwargs)
        places = function(torch.arange(x.loc.numel(), device=x.loc.device).reshape(x.loc.shape), *others, **kwargs)
        if isinstance(locs, Tensor):
            return _at(x, locs, places, function.__name__)
        return type(locs)(_at(x, loc, place, function.__name__) for loc, place in zip(locs, places, strict=True))

    return rule


def _at(x: JointMoments, loc: Tensor, places: Tensor, name: str) -> Moments:
    n = x.shape[-1]
    examples, units = places // n, places % n
    found: Moments
    in_order = torch.arange(x.loc.numel(), device=places.device)
    if loc.shape[-1:] == (n,) and torch.equal(places.flatten(), in_order):
        found = JointMoments(loc, x.covariance.reshape(*loc.shape, n), x.variance.reshape(loc.shape))
    elif examples.unique().numel() == examples.numel():
        found = Moments(loc, x.variance.reshape(-1)[places])
    else:
        rows = examples.reshape(-1, loc.shape[-1] if loc.dim() else 1)
        if not bool((rows == rows[:, :1]).all()) or rows[:, 0].unique().numel() != len(rows):
            raise no_covariances(name, "it separates the units of an example, or mixes examples")
        covariance = x.covariance.reshape(-1, n, n)[examples[..., None], units[..., :, None], units[..., None, :]]
        found = JointMoments(loc, covariance)
    found._writes, found._seen = x._writes, x._seen
    return found


def _same(function: Any) -> Callable[..., JointMoments]:
    def rule(x: JointMoments, *args: Any, **kwargs: Any) -> JointMoments:
        others = [loc_of(value) for value in args]
        parts = (function(value, *others, **kwargs) for value in (x.loc, x.covariance, x.variance))
        found = JointMoments(*parts)
        found._writes, found._seen = x._writes, x._seen
        return found

    return rule


def _joined(tensors: Any, dim: int = 0, **kwargs: Any) -> JointMoments:
    """Of independent parts."""
    dim = kwargs.get("axis", dim)
    loc = torch.cat([loc_of(value) for value in tensors], dim)
    known = [covariance_of(value) for value in tensors]
    parts = [_zeros(value) if part is None else part for value, part in zip(tensors, known, strict=True)]
    if dim not in (-1, loc.dim() - 1):
        return JointMoments(loc, torch.cat(parts, dim if dim >= 0 else dim - 1))
    before, rows = 0, []
    for part in parts:  # blocks on the diagonal
        rows.append(F.pad(part, (before, loc.shape[-1] - before - part.shape[-1])))
        before += part.shape[-1]
    return JointMoments(loc, torch.cat(rows, -2))


def _zeros(value: Tensor) -> Tensor:
    return value.new_zeros((*value.shape, value.shape[-1]))


_function: Any
for _name in MOVES.split():
    for _owner in (torch, Tensor):
        _function = getattr(_owner, _name, None)
        if callable(_function):
            covariance_rule(_function)(_same(_function) if _name in _SAME.split() else moved(_function))
covariance_rule(Tensor.detach, torch.detach)(_same(torch.detach))
covariance_rule(torch.cat, torch.concat, torch.concatenate)(_joined)
for _function in (Tensor.new_zeros, Tensor.new_ones, Tensor.new_tensor, Tensor.new_full, Tensor.new_empty):
    covariance_rule(_function)(size_rule(_function))
for _function in (torch.zeros_like, torch.ones_like, torch.randn_like, torch.rand_like, torch.full_like):
    covariance_rule(_function)(size_rule(_function))
