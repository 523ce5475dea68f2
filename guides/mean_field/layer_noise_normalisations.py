"""Normalisations whose scale and shift are normal: drawn for every example,
shared by its positions.
"""

from typing import Any

from torch import Tensor

from bayesnn.guides.mean_field.layer_noise_tensors import Find, leading


def batch_norm(
    function: Any,
    find: Find,
    batch: int,
    _: Any,
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *options: Any,
    **more: Any,
) -> Tensor:
    """Batch normalisation with running statistics, as in evaluation mode."""
    base = function(input, running_mean, running_var, None, None, *options, **more)
    return _scaled(base, find, weight, bias, leading(base, batch, base.dim() - 1), base.dim() - 2)


def group_norm(
    function: Any,
    find: Find,
    batch: int,
    _: Any,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Group normalisation, with a normal scale and shift of every channel."""
    base = function(input, num_groups, None, None, eps)
    return _scaled(base, find, weight, bias, leading(base, batch, base.dim() - 1), base.dim() - 2)


def layer_norm(
    function: Any,
    find: Find,
    batch: int,
    _: Any,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer normalisation, with a normal scale and shift of every entry of the last axes."""
    base = function(input, normalized_shape, None, None, eps)
    return _scaled(base, find, weight, bias, leading(base, batch, len(normalized_shape)), 0)


def _scaled(
    base: Tensor, find: Find, weight: Tensor | None, bias: Tensor | None, lead: tuple[int, ...], ones: int
) -> Tensor:
    """base * weight + bias, each drawn for every example; `ones` axes follow
    those of the parameters.
    """

    def drawn(parameter: Tensor) -> Tensor:
        normal = find(parameter)
        if normal is None:
            return parameter.reshape(*parameter.shape, *(1,) * ones)
        noise = parameter.new_empty(*lead, *parameter.shape).normal_()
        value = normal.loc + normal.scale * noise
        return value.reshape(*value.shape, *(1,) * ones)

    scaled = base if weight is None else base * drawn(weight)
    return scaled if bias is None else scaled + drawn(bias)
