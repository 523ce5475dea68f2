"""Maxima of normal variables, two at a time."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.pooling import per_axis
from bayesnn.moments.table import moment_rule
from bayesnn.moments.value import Moments, loc_of, variance_of


def maximum_moments(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> tuple[Tensor, Tensor]:
    """E and Var of max(x1, x2) for independent normal variables: exact.

    With t = sqrt(v1 + v2), a = (m1 - m2) / t and g = a Phi(a) + phi(a)

        mean = m1 Phi(a) + m2 Phi(-a) + t phi(a),    var = v1 Phi(a) + v2 Phi(-a) - t^2 g (g - a)

    References: Clark (1961), The greatest of a finite set of random variables; Gast, Roth (2018).

    >>> maximum_moments(*(torch.tensor(v) for v in (0.3, 0.5, -0.2, 1.0)))
    (tensor(0.5788), tensor(0.4537))
    """
    theta = (v1 + v2).clamp(min=1e-30).sqrt()
    a = ((m1 - m2) / theta).clamp(-20, 20)
    cdf = torch.erfc(a * -math.sqrt(0.5)) / 2
    pdf = (-0.5 * a * a).exp() / math.sqrt(2 * math.pi)
    g = a * cdf + pdf
    spread = v1 * cdf + v2 * (1 - cdf) - (v1 + v2) * g * (g - a)
    return m1 * cdf + m2 * (1 - cdf) + theta * pdf, spread.clamp(min=0)


def pairwise_max_pool(
    input: Moments,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Moments:
    """Max-pooling by exact maxima of pairs, along the last axis, then the one before; a maximum is
    taken as normal.

    More accurate than the entry with the largest mean where the entries of a window are close, and
    several times the cost. Use it inside `using_moment_rules({F.max_pool2d: pairwise_max_pool})`,
    or put it into `MOMENT_RULES`.

    Reference: Gast, Roth (2018), Lightweight probabilistic deep networks.
    """
    if return_indices or ceil_mode:
        raise NotImplementedError("moments: pairwise_max_pool has no rule for return_indices or ceil_mode")
    given = kernel_size if stride is None or stride == () or stride == [] else stride
    spatial = input.loc.dim() - (2 if input.loc.dim() > 2 else 1)
    kernel, stride, padding, dilation = (per_axis(v, spatial) for v in (kernel_size, given, padding, dilation))
    loc, variance = input.loc, input.variance
    for axis in range(-1, -1 - spatial, -1):
        if padding[axis]:
            around = (0, 0) * (-1 - axis) + (padding[axis], padding[axis])
            # never the largest
            low = float(loc.detach().amin() - 100 * variance.detach().amax().sqrt() - 1)
            loc, variance = F.pad(loc, around, value=low), F.pad(variance, around)
        width = dilation[axis] * (kernel[axis] - 1) + 1
        count = (loc.shape[axis] - width) // stride[axis] + 1
        parts = []
        for cell in range(kernel[axis]):
            start = cell * dilation[axis]
            at: Any = (
                ...,
                slice(start, start + (count - 1) * stride[axis] + 1, stride[axis]),
                *(slice(None),) * (-1 - axis),
            )
            parts.append((loc[at], variance[at]))
        loc, variance = parts[0]
        for other in parts[1:]:
            loc, variance = maximum_moments(loc, variance, *other)
    return Moments(loc, variance)


@moment_rule(torch.maximum, Tensor.maximum)
def _maximum(input: Any, other: Any) -> Moments:
    pairs = [(loc_of(x), torch.zeros_like(x) if variance_of(x) is None else variance_of(x)) for x in (input, other)]
    return Moments(*maximum_moments(*pairs[0], *pairs[1]))  # type: ignore[arg-type]
