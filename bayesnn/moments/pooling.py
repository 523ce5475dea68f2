"""Pooling: averages of independent cells, and maxima."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.table import moment_rule
from bayesnn.moments.value import Moments


def _average(spatial: int, function: Any) -> Callable[..., Moments]:
    """Means of means; the variance of a mean of n independent cells is their mean over n."""

    def rule(
        input: Moments,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Moments:
        stride = stride if stride is not None and stride != () and stride != [] else kernel_size
        options = (kernel_size, stride, padding, ceil_mode, count_include_pad)
        more = (divisor_override,) if spatial > 1 else ()
        averaged = function(input.variance, *options, *more)
        loc = function(input.loc, *options, *more)
        if not ceil_mode and (count_include_pad or not any(per_axis(padding, spatial))):
            return Moments(loc, averaged / (divisor_override or math.prod(per_axis(kernel_size, spatial))))
        ones = torch.ones((1, 1, *input.loc.shape[-spatial:]), dtype=loc.dtype, device=loc.device)
        cells = _window_sum(ones, kernel_size, stride, padding, ceil_mode, spatial)
        # by which the sum of every window was divided
        divisor = cells / function(ones, *options, *more)
        return Moments(loc, averaged / divisor[0, 0])

    return rule


def _window_sum(ones: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, spatial: int) -> Tensor:
    if spatial == 1:
        wide, step = ((1, *per_axis(value, 1)) for value in (kernel, stride))
        flat = ones.unsqueeze(-2)
        return F.avg_pool2d(flat, wide, step, (0, *per_axis(padding, 1)), ceil_mode, divisor_override=1).squeeze(-2)
    function: Any = F.avg_pool2d if spatial == 2 else F.avg_pool3d
    return function(ones, kernel, stride, padding, ceil_mode, divisor_override=1)


def _adaptive_average(spatial: int, function: Any) -> Callable[..., Moments]:
    def rule(input: Moments, output_size: Any) -> Moments:
        loc = function(input.loc, output_size)
        cells = loc.new_ones(())
        # bins may overlap, and have one cell where the output is larger than the input
        for axis in range(-spatial, 0):
            n, bins = input.loc.shape[axis], loc.shape[axis]
            counts = [-(-(i + 1) * n // bins) - i * n // bins for i in range(bins)]
            cells = cells * loc.new_tensor(counts).reshape(-1, *(1,) * (-1 - axis))
        return Moments(loc, function(input.variance, output_size) / cells)

    return rule


for _spatial in (1, 2, 3):
    _function = getattr(F, f"avg_pool{_spatial}d")
    moment_rule(_function)(_average(_spatial, _function))
    _function = getattr(F, f"adaptive_avg_pool{_spatial}d")
    moment_rule(_function)(_adaptive_average(_spatial, _function))


def _largest_mean(spatial: int, function: Any) -> Callable[..., Moments]:
    """The entry with the largest mean: the cheap rule, exact where means are far apart."""

    def rule(input: Moments, *args: Any, return_indices: bool = False, **kwargs: Any) -> Moments:
        if return_indices:
            raise NotImplementedError("moments: a pooling that returns its indices has no rule; pool without them")
        loc, index = function(input.loc, *args, return_indices=True, **kwargs)
        entries = input.variance.flatten(-spatial).gather(-1, index.flatten(-spatial))
        return Moments(loc, entries.reshape(loc.shape))

    return rule


for _spatial in (1, 2, 3):
    for _name in ("max_pool", "adaptive_max_pool"):
        _function = getattr(F, f"{_name}{_spatial}d")
        moment_rule(_function)(_largest_mean(_spatial, _function))


def per_axis(value: Any, count: int) -> tuple[int, ...]:
    """One number for each spatial axis, of an argument that may be one for all."""
    return (value,) * count if isinstance(value, int) else (tuple(value) * count if len(value) == 1 else tuple(value))
