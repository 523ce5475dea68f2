"""Call a network with given parameter values, leaving the network as it was."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

Inputs: TypeAlias = "Tensor | tuple[object, ...] | Mapping[str, object]"
"""What a network is called with: a tensor `net(x)`, a tuple `net(*x)`, or a dict `net(**x)`.

A network that takes one dict or one tuple as its only argument gets it wrapped: `(batch,)`.
Every tensor inside has the batch as its first axis.
"""


def parameters(net: nn.Module) -> dict[str, Tensor]:
    """{name: detached parameter} in the network's own order; a tied parameter appears once, under its first name."""
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


def call(net: nn.Module, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
    """f(x; w): the network's outputs at the parameter values `values`, which need not name every parameter.

    Parameters that are not named keep the network's own values, without gradients. Tied parameters stay tied. Buffers
    are cloned, so that nothing the forward pass writes reaches the network.

    Shapes: x [batch, ...] -> outputs [batch, ...].

    >>> net = nn.Linear(2, 1, bias=False)
    >>> call(net, {"weight": torch.tensor([[1.0, 2.0]])}, torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    state = parameters(net)
    state.update((name, buffer.clone()) for name, buffer in net.named_buffers())
    state.update(values)
    if isinstance(x, Mapping):
        outputs = functional_call(net, state, (), dict(x))
    else:
        outputs = functional_call(net, state, tuple(x) if isinstance(x, (tuple, list)) else (x,))
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"{type(net).__name__} returns {type(outputs).__name__}, not one tensor of outputs [batch, ...]; "
            "wrap it in a module whose forward picks the tensor that the likelihood is about."
        )
    return outputs


def tensors(x: Inputs) -> list[Tensor]:
    """The tensors inside `x`, in order."""
    return [leaf for leaf in pytree.tree_leaves(x) if isinstance(leaf, Tensor)]


def batch_size(x: Inputs) -> int:
    """The number of examples in `x`: the common first axis of its tensors."""
    sizes = {leaf.shape[0] if leaf.dim() else None for leaf in tensors(x)}
    if len(sizes) != 1 or None in sizes:
        shapes = [tuple(leaf.shape) for leaf in tensors(x)]
        raise ValueError(f"every tensor of the inputs needs the batch as its first axis; their shapes are {shapes}")
    size = sizes.pop()
    assert size is not None
    return size


def chunks(x: Inputs, size: int) -> Iterator[Inputs]:
    """`x` in consecutive parts of at most `size` examples."""
    total = batch_size(x)
    for start in range(0, total, size):
        part: Inputs = pytree.tree_map_only(Tensor, lambda leaf, s=start: leaf[s : s + size], x)
        yield part


def to_device(x: Inputs, device: torch.device) -> Inputs:
    """`x` with its tensors on `device`."""
    moved: Inputs = pytree.tree_map_only(Tensor, lambda leaf: leaf.to(device), x)
    return moved
