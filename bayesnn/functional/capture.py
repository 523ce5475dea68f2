"""The input of a linear layer inside a network, read without hooks."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree


def linear_input(forward: Callable[[], Tensor], weight: Tensor) -> tuple[Tensor, Tensor | None]:
    """phi(x) where the outputs are `F.linear(phi(x), weight, bias)`.

    Args:
        forward: computes the outputs [batch, class] with a network that uses `weight`, that very tensor.
        weight: [class, feature].

    Returns:
        The outputs [batch, class], and the features [batch, feature]; None in their place where `weight` is not the
        network's very last operation, or is used more than once.
    """
    with _LinearCalls(weight) as calls:
        outputs = forward()
    if len(calls.seen) == 1:
        features, result = calls.seen[0]
        if result is outputs and features.dim() == 2:
            return outputs, features
    return outputs, None


class _LinearCalls(TorchFunctionMode):
    """Notes the input and the result of every `F.linear` with the given weight; counts any other use as a call too."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is F.linear and len(args) > 1 and args[1] is self.weight:
            self.seen.append((args[0], result))
        elif isinstance(result, Tensor) and any(leaf is self.weight for leaf in pytree.tree_leaves((args, kwargs))):
            self.seen.append((result, result))
        return result
