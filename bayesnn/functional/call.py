"""Call a network with given parameter values, leaving the network as it was."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bayesnn.functional.holding import alone, holding

Inputs: TypeAlias = "Tensor | tuple[object, ...] | Mapping[str, object]"
"""What a network is called with: a tensor `net(x)`, a tuple `net(*x)`, or a dict `net(**x)`.

A network that takes one dict or one tuple as its only argument gets it wrapped: `(batch,)`.
Every tensor inside has the batch as its first axis.
"""


def parameters(net: nn.Module) -> dict[str, Tensor]:
    """{name: detached parameter} in the network's own order; a tied parameter
    appears once, under its first name.
    """
    with alone():
        return {name: parameter.detach() for name, parameter in net.named_parameters()}


def call(net: nn.Module, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
    """f(x; w): the network's outputs at the parameter values `values`, which need not name every
    parameter.

    Parameters that are not named keep the network's own values, without gradients. Tied parameters
    stay tied. Buffers may be named too; they are cloned, so that nothing the forward pass writes
    reaches the network. Threads take turns: inside a call the network holds its values, and a
    thread that calls the network itself meanwhile would see them.

    Shapes: x [batch, ...] -> outputs [batch, ...].

    Raises:
        ValueError: a value for a parameter that the network does not have.
        TypeError: the network returns anything but one tensor, or contains a scripted module or
            `nn.DataParallel`.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> call(net, {"weight": torch.tensor([[1.0, 2.0]])}, torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    with alone(), holding(net, _state(net, values)):
        return _called(net, x)


def call_chunks(net: nn.Module, values: Mapping[str, Tensor], parts: Sequence[Inputs]) -> Tensor:
    """`call` on consecutive parts of one set of inputs, joined again; the
    values are put in place once for all.
    """
    with alone(), holding(net, _state(net, values)):
        return torch.cat([_called(net, x) for x in parts])


def _state(net: nn.Module, values: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """{id of a parameter or buffer: what the network is called with in its place}."""
    own = dict(net.named_parameters())  # tied ones under their first names
    buffers = dict(net.named_buffers())
    unknown = [name for name in values if name not in own and name not in buffers]
    if unknown:
        raise ValueError(
            f"{type(net).__name__} has no parameter {unknown[0]!r} (a tied parameter goes by its first name); it has "
            f"{', '.join(own)}"
        )
    state = {id(held): values[name] if name in values else held.detach() for name, held in own.items()}
    state.update((id(buffer), values.get(name, buffer).clone()) for name, buffer in buffers.items())
    return state


def _called(net: nn.Module, x: Inputs) -> Tensor:
    return _one_tensor(net, net(**x) if isinstance(x, Mapping) else net(*_arguments(x)))


def _arguments(x: Inputs) -> tuple[object, ...]:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _one_tensor(net: nn.Module, outputs: object) -> Tensor:
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
