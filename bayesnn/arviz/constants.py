"""The inputs of a call as the group constant_data."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bayesnn.arviz.quantities import array


def constants(named: Mapping[str, Any], targets: Collection[Tensor], taken: Collection[str]) -> dict[str, np.ndarray]:
    """{name: array} of the tensors inside, targets excluded.

    A tuple or dict of tensors becomes one variable for each, `x_0` or `x_key`. Names that are
    `taken` get "_data".
    """
    found = {}
    for name, value in named.items():
        for variable, tensor in _tensors(name, value):
            if not any(_is_target(tensor, target) for target in targets):
                found[variable + "_data" if variable in taken else variable] = array(tensor)
    return found


def argument_names(model: Callable[..., Any], count: int) -> list[str]:
    """What the model itself calls its first `count` positional arguments."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
        names = [name for name, parameter in signature.parameters.items() if parameter.kind in positional]
    except (TypeError, ValueError):  # a callable without a signature
        names = []
    return names[:count] + [f"arg_{i}" for i in range(len(names), count)]


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(f"{name}_{key}", part)
    elif isinstance(value, (tuple, list)):
        for i, part in enumerate(value):
            yield from _tensors(f"{name}_{i}", part)


def _is_target(tensor: Tensor, target: Tensor) -> bool:
    """Observed values may have lost an event axis of size 1."""
    return tensor.numel() == target.numel() and torch.equal(tensor.reshape(-1), target.reshape(-1))
