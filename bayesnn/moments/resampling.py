"""Interpolation: a linear map along each axis, whose squared coefficients take the variances."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.shapes import both_moments
from bayesnn.moments.table import MOMENT_RULES, moment_rule
from bayesnn.moments.value import Moments

_ADAPTIVE = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


@moment_rule(F.interpolate)
def interpolated(
    input: Moments,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Moments:
    """E and Var of y = A x, independent x: A m and (A o A) v, A a product of one matrix an axis.

    Shapes: input [batch, channel, *spatial] -> the same with other sizes. The options are those of
    `F.interpolate`.

    >>> x = Moments(torch.tensor([[[0.0, 4.0]]]), torch.ones(1, 1, 2))
    >>> interpolated(x, scale_factor=2, mode="linear").variance
    tensor([[[1.0000, 0.6250, 0.6250, 1.0000]]])
    """
    options = (mode, align_corners, recompute_scale_factor, antialias)
    if mode in ("nearest", "nearest-exact"):
        found: Moments = both_moments(F.interpolate)(input, size, scale_factor, *options)
        return found
    loc = F.interpolate(input.loc, size, scale_factor, *options)
    spatial = loc.dim() - 2
    if mode == "area":
        return MOMENT_RULES[_ADAPTIVE[spatial]](input, loc.shape[2:])
    variance = input.variance
    for axis in range(2, loc.dim()):
        variance = torch.movedim(variance, axis, -1) @ _coefficients(input.loc, loc, axis, scale_factor, options)
        variance = torch.movedim(variance, -1, axis)
    return Moments(loc, variance)


def _coefficients(x: Tensor, y: Tensor, axis: int, scale_factor: Any, options: Any) -> Tensor:
    """The squares of A^T along one axis, [in, out]: of unit vectors, constant along the others.

    Those are two wide: torch's antialiasing takes an axis of one for another layout of the memory.
    """
    n, spatial = x.shape[axis], range(2, x.dim())
    shape = [n if at == axis else 1 for at in spatial]
    units = torch.eye(n, dtype=x.dtype, device=x.device).reshape(1, n, *shape)
    units = units.repeat(1, 1, *(1 if at == axis else 2 for at in spatial))
    if scale_factor is None:
        size = tuple(y.shape[at] if at == axis else 2 for at in spatial)
        out = F.interpolate(units, size, None, *options)
    else:
        factors = (scale_factor,) * len(spatial) if isinstance(scale_factor, (int, float)) else tuple(scale_factor)
        scales = tuple(factors[at - 2] if at == axis else 1.0 for at in spatial)
        out = F.interpolate(units, None, scales, *options)
    return out.movedim(axis, -1).reshape(n, -1, out.shape[axis])[:, 0].square()
