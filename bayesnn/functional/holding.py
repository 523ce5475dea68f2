"""Put values into a network for one call, alone, and leave nothing of them behind."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

_LOCK = threading.RLock()


def alone() -> Any:
    """Inside, no other thread has values in a network, draws from a guide, or has changed torch's
    switches.

    One lock for the process, which a thread may take again: networks share layers, and Pyro's
    handler stack, torch's switches and the list of warning filters exist once. It is held for one
    call of a network or one draw, so that threads take turns. Code that is compiled is not
    guarded: `torch.compile` cannot trace a lock.
    """
    return nullcontext() if torch.compiler.is_compiling() else _LOCK


@contextmanager
def holding(net: nn.Module, values: Mapping[int, Tensor]) -> Iterator[None]:
    """Inside, every place of the network that holds a tensor t has `values[id(t)]`, where there is
    one.

    A module is visited once, whatever number of names it has. At the end, after an exception too,
    every attribute of every module is what it was: the places, the second list that recurrent
    layers keep of their weights, and what a forward pass or its hooks assigned.

    Raises:
        TypeError: a scripted module, whose tensors cannot be replaced, or `nn.DataParallel`, which
            copies the network.
    """
    modules = list(net.modules())
    for module in modules:
        if isinstance(module, (torch.jit.ScriptModule, nn.DataParallel)):
            raise TypeError(
                f"{type(module).__name__}: a network that is called with other weights cannot contain it; use the "
                "nn.Module that it was made from"
            )
    places: list[tuple[Any, str, Tensor]] = [
        (held, key, tensor)
        for module in modules
        for held in (module._parameters, module._buffers)
        for key, tensor in held.items()
        if tensor is not None and id(tensor) in values
    ]
    compiling = torch.compiler.is_compiling()  # Dynamo looks after attributes itself
    attributes = [] if compiling else [(vars(module), dict(vars(module))) for module in modules]
    try:
        for held, key, tensor in places:
            held[key] = values[id(tensor)]
        yield
    finally:
        for held, before in attributes:
            _restore(held, before)
        for held, key, tensor in places:
            held[key] = tensor


def _restore(held: dict[str, Any], before: dict[str, Any]) -> None:
    """Make the attributes those of before, writing only what differs."""
    for key, value in before.items():
        if key not in held or held[key] is not value:
            held[key] = value
    if len(held) > len(before):
        for key in [key for key in held if key not in before]:
            del held[key]
