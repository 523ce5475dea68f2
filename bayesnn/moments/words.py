"""Positions that looked up the same row of a table: equal, and so perfectly correlated."""

from typing import Any

import torch
from torch import Tensor

from bayesnn.moments.place import place
from bayesnn.moments.uses import RepeatedUse

_POSITIONWISE = {
    *("relu", "leaky_relu", "abs", "relu6", "hardtanh", "hardsigmoid", "clamp", "clamp_min", "clamp_max", "exp"),
    *("square", "neg", "linear", "layer_norm", "rms_norm", "add", "sub", "mul", "div", "__add__", "__radd__"),
    *("__sub__", "__mul__", "__rmul__", "__truediv__", "__neg__", "__rsub__", "contiguous", "clone", "float"),
    *("double", "to", "detach"),
}
_REDUCTIONS = {"sum", "mean"}


def carried(name: str, elementwise: bool, words: Tensor, tensors: list[Tensor]) -> Tensor | None:
    """The words of the result: those of the input, where every position is computed by itself.

    Args:
        name: of the operation.
        elementwise: whether its rule is.
        words: integers of the positions that the input starts with.
        tensors: all arguments.

    Raises:
        RepeatedUse: an operation in which positions may meet, other than a sum or mean over them.
    """
    if name in _REDUCTIONS:
        return None
    others = sum(tensor.dim() > 1 for tensor in tensors) - 1
    if (elementwise or name in _POSITIONWISE) and others <= (name == "linear"):
        return words
    raise repeated_words(name)


def repeated_words(name: str) -> RepeatedUse:
    """The error of an operation in which equal words of one example may meet."""
    return RepeatedUse(
        f"moments: {name} at {place()} takes looked up rows of which an example has one twice; these are correlated, "
        "which means and variances alone cannot carry. A sum or mean over the positions, behind layers that take "
        "every position by itself, and nn.EmbeddingBag are exact; otherwise use MeanField, whose draws are, "
        "linearised_distribution, or a subset without the embedding"
    )


def inflation(words: Tensor, axes: tuple[int, ...]) -> Any:
    """How often each position's word occurs among those that a sum over these axes adds to it.

    The variance of sum_t x_t with x_t = x_u wherever words are equal is sum_t n_t Var x_t.

    >>> inflation(torch.tensor([[3, 3, 5]]), (1,))
    tensor([[2, 2, 1]])
    """
    summed = [axis for axis in axes if axis < words.dim()]
    kept = [axis for axis in range(words.dim()) if axis not in summed]
    if len(kept) > 1:
        raise repeated_words("a sum or mean over some of the positions")
    order = [*kept, *summed]
    lines = words.permute(order)
    flat = lines.reshape(*lines.shape[: len(kept)], -1)
    counts = (flat.unsqueeze(-1) == flat.unsqueeze(-2)).sum(-1).reshape(lines.shape)
    return counts.permute([order.index(axis) for axis in range(words.dim())])


def reduced_axes(dims: int, args: Any, kwargs: Any) -> tuple[int, ...]:
    """The axes that `sum(x, *args, **kwargs)` adds over, of so many."""
    given = args[0] if args else kwargs.get("dim", kwargs.get("axis"))
    if given is None or isinstance(given, torch.dtype) or given == ():
        return tuple(range(dims))
    return tuple(axis % dims for axis in ((given,) if isinstance(given, int) else given))
