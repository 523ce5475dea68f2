"""Call a network with given parameter values, leaving the network as it was."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    may be named too; they are cloned, so that nothing the forward pass writes reaches the network.

    Shapes: x [batch, ...] -> outputs [batch, ...].

    Raises:
        ValueError: a value for a parameter that the network does not have.
        TypeError: the network returns anything but one tensor.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> call(net, {"weight": torch.tensor([[1.0, 2.0]])}, torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    state = _state(net, values)
    with _keeping_lists_of_weights(net):
        if isinstance(x, Mapping):
            outputs = functional_call(net, state, (), dict(x), tie_weights=False)
        else:
            outputs = functional_call(net, state, _arguments(x), tie_weights=False)
    return _one_tensor(net, outputs)


def call_chunks(net: nn.Module, values: Mapping[str, Tensor], parts: Sequence[Inputs]) -> Tensor:
    """`call` on consecutive parts of one set of inputs, joined again; the values are put in place once for all."""
    state = {f"net.{name}": value for name, value in _state(net, values).items()}
    with _keeping_lists_of_weights(net):
        return functional_call(_OfChunks(net), state, (parts,), tie_weights=False)


class _OfChunks(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, parts: Sequence[Inputs]) -> Tensor:
        outputs = [self.net(**x) if isinstance(x, Mapping) else self.net(*_arguments(x)) for x in parts]
        return torch.cat([_one_tensor(self.net, output) for output in outputs])


def _state(net: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every parameter and buffer that the network is called with, under all its names."""
    first: dict[int, str] = {}
    state: dict[str, Tensor] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(parameter), name)  # tied parameters stay tied
        state[name] = values[known] if known in values else parameter.detach()
    buffers = dict(net.named_buffers(remove_duplicate=False))
    unknown = [name for name in values if name not in first.values() and name not in buffers]
    if unknown:
        raise ValueError(
            f"{type(net).__name__} has no parameter {unknown[0]!r} (a tied parameter goes by its first name); it has "
            f"{', '.join(first.values())}"
        )
    state.update((name, values.get(name, buffer).clone()) for name, buffer in buffers.items())
    return state


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


@contextmanager
def _keeping_lists_of_weights(net: nn.Module) -> Iterator[None]:
    """Recurrent layers list their weights a second time, and would keep the values of this call, with their graph."""
    recurrent = [module for module in net.modules() if isinstance(module, nn.RNNBase)]
    held = [(layer, layer._flat_weights, layer._flat_weight_refs) for layer in recurrent]
    try:
        yield
    finally:
        for layer, weights, references in held:
            layer._flat_weights, layer._flat_weight_refs = weights, references


def to_device(x: Inputs, device: torch.device) -> Inputs:
    """`x` with its tensors on `device`."""
    moved: Inputs = pytree.tree_map_only(Tensor, lambda leaf: leaf.to(device), x)
    return moved
