"""Normalisations: with running statistics exact, otherwise with the statistics of the means."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.arithmetic import scaled
from bayesnn.moments.table import moment_rule
from bayesnn.moments.value import Moments, loc_of, variance_of


@moment_rule(F.batch_norm)
def _batch_norm(
    input: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Moments:
    """var g^2 / (running variance + eps); in training the means are normalised by their batch's
    own statistics.

    Then the variance of the batch, of the means alone and biased as in the forward pass, counts as
    a constant.
    """
    m, v = loc_of(input), variance_of(input)
    if training or running_var is None:
        axes = [0, *range(2, m.dim())]
        spread = m.detach().var(axes, correction=0)
    else:
        spread = running_var
    shape = (1, -1, *(1,) * (m.dim() - 2))
    normalised = (running_mean, running_var, None, None, training, momentum, eps)
    if isinstance(weight, Moments) or isinstance(bias, Moments):
        loc = F.batch_norm(m, *normalised)
        unit = Moments(loc, (torch.zeros_like(m) if v is None else v) / (spread + eps).reshape(shape))
        return _affine(unit, weight, bias, shape)
    loc = F.batch_norm(m, running_mean, running_var, weight, bias, training, momentum, eps)
    factor = 1 / (spread + eps) if weight is None else weight.square() / (spread + eps)
    assert v is not None, "something is random"
    return Moments(loc, v * factor.reshape(shape))


@moment_rule(torch.batch_norm)
def _batch_norm_of_torch(
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Moments:
    return _batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


@moment_rule(F.layer_norm, torch.layer_norm)
def _layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Moments:
    axes = tuple(range(-len(normalized_shape), 0))
    return _affine(_standardised(input, axes, eps), weight, bias, None)


@moment_rule(F.group_norm, torch.group_norm)
def _group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Moments:
    shape = loc_of(input).shape
    grouped = (shape[0], num_groups, -1)
    m, v = loc_of(input), variance_of(input)
    parts = Moments(m.reshape(grouped), (torch.zeros_like(m) if v is None else v).reshape(grouped))
    unit = _standardised(parts, (-1,), eps)
    whole = Moments(unit.loc.reshape(shape), unit.variance.reshape(shape))
    return _affine(whole, weight, bias, (1, -1, *(1,) * (len(shape) - 2)))


@moment_rule(F.instance_norm)
def _instance_norm(
    input: Any,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Moments:
    """As groups of one channel; with running statistics as batch normalisation."""
    if use_input_stats:
        return _group_norm(input, loc_of(input).shape[1], weight, bias, eps)
    return _batch_norm(input, running_mean, running_var, weight, bias, training=False, eps=eps)


@moment_rule(F.rms_norm, torch.rms_norm)
def _rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Moments:
    """x / sqrt(E[sum_j x_j^2 / n] + eps), the root a constant: right to order 1 / n."""
    m, v = loc_of(input), variance_of(input)
    axes = tuple(range(-len(normalized_shape), 0))
    spread = torch.zeros_like(m) if v is None else v
    size = (m.square() + spread).mean(axes, keepdim=True) + (torch.finfo(m.dtype).eps if eps is None else eps)
    return _affine(Moments(m / size.sqrt(), spread / size), weight, None, None)


def _standardised(input: Any, axes: tuple[int, ...], eps: float) -> Moments:
    """(x_j - mean x) / spread, the spread a constant at E[sum_j (x_j - mean x)^2 / n]: right to
    order 1 / n.

    E of the empirical variance is that of the means plus (1 - 1/n) mean v, and Var(x_j - mean x)
    is v_j (1 - 2/n) + mean v / n.
    """
    m, v = loc_of(input), variance_of(input)
    entries = 1
    for axis in axes:
        entries *= m.shape[axis]
    centred = m - m.mean(axes, keepdim=True)
    spread = centred.square().mean(axes, keepdim=True)
    if v is None:
        return Moments(centred / (spread + eps).sqrt(), torch.zeros_like(m))
    average = v.mean(axes, keepdim=True)
    spread = spread + (1 - 1 / entries) * average + eps
    return Moments(centred / spread.sqrt(), (v * (1 - 2 / entries) + average / entries).clamp(min=0) / spread)


def _affine(unit: Moments, weight: Any, bias: Any, shape: tuple[int, ...] | None) -> Moments:
    """W x + b elementwise, W and b certain or random and independent of x."""
    result = unit
    if weight is not None:
        result = scaled(result, _shaped(weight, shape))
    if bias is not None:
        shift = _shaped(bias, shape)
        variance = result.variance if (spread := variance_of(shift)) is None else result.variance + spread
        result = Moments(result.loc + loc_of(shift), variance)
    return result


def _shaped(value: Any, shape: tuple[int, ...] | None) -> Any:
    return value if shape is None else value.reshape(shape)
