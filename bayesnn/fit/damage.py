"""What is wrong with the content of a checkpoint that can be read and belongs to this run."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn.fit.history import RunState


def fault_of(content: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """The first part that is missing or number that is not finite; empty where there is none.

    Parameters that are trained, the optimiser's state and the losses of the run have to be finite.
    Buffers and parameters that are kept fixed may hold what they like.
    """
    return next(_faults(content, parts), "")


def _faults(content: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterator[str]:
    held, run = content.get("parts"), content.get("run")
    wanted = [field.name for field in fields(RunState) if field.default is MISSING and field.default_factory is MISSING]
    known = [field.name for field in fields(RunState)]
    yield from _missing("parts", held, parts)
    yield from _missing("run", run, wanted)
    assert isinstance(held, Mapping)  # a fault stops at the first
    assert isinstance(run, Mapping)
    yield from (f"run[{name!r}] is no part of a run" for name in run if name not in known)
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            yield from _missing(f"parts[{name!r}]", held[name], part.state_dict())
            yield from _of_module(f"parts[{name!r}]", held[name], part)
    if "optimizer" in parts:
        yield from _of_optimizer(held["optimizer"], parts["optimizer"].state_dict())
    for name in ("total", "loss"):
        yield from _not_finite(f"run[{name!r}]", run.get(name))


def _missing(where: str, found: Any, names: Iterable[str]) -> Iterator[str]:
    if not isinstance(found, Mapping):
        yield f"{where} is missing"
        return
    yield from (f"{where}[{name!r}] is missing" for name in names if name not in found)


def _of_module(where: str, found: Mapping[str, Any], module: nn.Module) -> Iterator[str]:
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor) and getattr(found[name], "shape", None) != value.shape:
            yield f"{where}[{name!r}] is no tensor of shape {list(value.shape)}"
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    for name in trained & found.keys():
        yield from _not_finite(f"{where}[{name!r}]", found[name])


def _of_optimizer(found: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    yield from _missing("parts['optimizer']", found, own)
    for number, group in enumerate(own["param_groups"]):
        theirs = found["param_groups"][number] if number < len(found["param_groups"]) else None
        # Not all of its options: those that a newer torch has added, it fills in itself.
        yield from _missing(f"parts['optimizer']['param_groups'][{number}]", theirs, {"params", "lr"} & group.keys())
    yield from _not_finite("parts['optimizer']['state']", found["state"])


def _not_finite(where: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _not_finite(f"{where}[{key!r}]", part)
    elif isinstance(value, tuple | list):
        for number, part in enumerate(value):
            yield from _not_finite(f"{where}[{number}]", part)
    elif isinstance(value, Tensor | float) and not bool(torch.isfinite(torch.as_tensor(value)).all()):
        yield f"{where} is not finite"
