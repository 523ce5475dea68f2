"""What a network is, to the bit: values, versions, gradients, flags, hooks, types, every attribute
of every module.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Facts = dict[str, object]


@contextmanager
def unchanged(net: nn.Module) -> Iterator[None]:
    """Fails with the list of what differs between entry and exit, also where the block raises."""
    before = facts(net)
    try:
        yield
    finally:
        after = facts(net)
        differing = [key for key in before.keys() | after.keys() if not _same(before.get(key), after.get(key))]
        assert not differing, f"the network was changed: {sorted(differing)[:8]}"


def facts(net: nn.Module) -> Facts:
    """Everything that may not change, by name. Objects are kept, so that
    identity can be compared.
    """
    found: Facts = {}
    for name, module in net.named_modules(remove_duplicate=False):
        found[f"{name}: type"] = type(module)
        for key, value in vars(module).items():
            if key in ("_parameters", "_buffers", "_modules") or key.endswith("_hooks"):
                found[f"{name}: {key}"] = dict(value)
            elif isinstance(value, (list, tuple)):
                found[f"{name}: {key}"] = list(value)
            else:
                found[f"{name}: {key}"] = value
    named = [*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        found[f"{name}: tensor"] = tensor
        found[f"{name}: tensor's type"] = type(tensor)
        found[f"{name}: bits"] = _bits(tensor)
        found[f"{name}: version"] = tensor._version  # counts writes in place, those undone too
        found[f"{name}: requires_grad"] = tensor.requires_grad
        found[f"{name}: grad"] = None if tensor.grad is None else _bits(tensor.grad)
    return found


def _bits(tensor: Tensor) -> bytes:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()


def _same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(a[key] is b[key] for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, (int, float, str, bytes)):
        return type(a) is type(b) and a == b
    return a is b
