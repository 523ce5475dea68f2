"""How many draws can pass a network together."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from bayesnn.functional import Inputs, batch_size, chunks
from bayesnn.models import Model

LIMIT = 256 * 2**20
"""Bytes that one vectorised group of draws may take."""


def draws_together(model: Model, values: Mapping[str, Tensor], x: Inputs) -> int:
    """How many draws pass together within `LIMIT`, counting their values and all activations that they change.

    Activations that do not depend on the random values are shared by the draws and do not count: a network whose last
    layer alone is random runs once for all draws. One and two examples tell what more of them take.

    Args:
        model: whose `outputs` the draws go through.
        values: one draw.
        x: the inputs that pass together.
    """
    examples = batch_size(x)
    one = _dependent_bytes(model, values, next(chunks(x, 1)))
    two = _dependent_bytes(model, values, next(chunks(x, 2))) if examples > 1 else one
    return int(max(1, LIMIT // max(1, one + (two - one) * (examples - 1))))


def _dependent_bytes(model: Model, values: Mapping[str, Tensor], x: Inputs) -> int:
    with torch.enable_grad(), _Dependent() as seen:
        model.outputs({name: value.detach().requires_grad_() for name, value in values.items()}, x)
    return seen.bytes + sum(value.numel() * value.element_size() for value in values.values())


class _Dependent(TorchFunctionMode):
    """Sums the bytes of all results that depend on what requires gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.requires_grad and not leaf.is_leaf:
                self.bytes += leaf.numel() * leaf.element_size()
        return result
