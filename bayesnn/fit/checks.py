"""Arguments that cannot work, and the cause of a number that is not finite."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def check_arguments(
    loss: object, *, epochs: int, every: int, clip: float | None, patience: int | None, validate: object
) -> None:
    """Raise where an argument of `fit` cannot work."""
    if not isinstance(loss, nn.Module):
        raise TypeError(
            f"fit: the loss must be an nn.Module called as loss(*batch), such as Trace_ELBO()(model, guide), "
            f"not {type(loss).__name__}"
        )
    for name, value in {"epochs": epochs, "every": every, "patience": patience}.items():
        if value is not None and (value != int(value) or value < 1):
            raise ValueError(f"fit: {name} must be an integer of at least 1, not {value!r}")
    if clip is not None and not clip > 0:
        raise ValueError(f"fit: clip is the largest gradient norm, a positive number or None, not {clip!r}")
    if patience is not None and validate is None:
        raise ValueError("fit: patience counts epochs without a better validation value; give validate= as well")


def check_repeatable(loader: object) -> None:
    """Raise where a loader's batches cannot be drawn again, as a checkpoint needs."""
    if getattr(loader, "persistent_workers", False):
        raise ValueError(
            "fit: with persistent_workers=True the workers' random state lives on from epoch to epoch and cannot be "
            "restored from a checkpoint; set persistent_workers=False, or fit without a checkpoint"
        )
    if not getattr(loader, "in_order", True):
        raise ValueError(
            "fit: with in_order=False the order of the batches is left to chance and cannot be restored from a "
            "checkpoint; set in_order=True, or fit without a checkpoint"
        )


def causes(batch: Any, parameters: Mapping[str, Tensor]) -> list[str]:
    """One sentence for each tensor of the batch and each parameter that is not
    finite, saying where.
    """
    tensors = {**dict(_named("batch", batch)), **{f"parameter {name}": value for name, value in parameters.items()}}
    return [f"{name} {fault}" for name, value in tensors.items() if (fault := not_finite(value))]


def not_finite(value: Tensor) -> str:
    """Where the tensor is NaN or infinite; empty if nowhere."""
    wrong = ~torch.isfinite(value.detach())
    if not wrong.any():
        return ""
    where = tuple(wrong.nonzero()[0].tolist())
    fault = f"is {value[where].item()}" + (f" at index {list(where)}" if where else "")
    return fault + (f" ({int(wrong.sum())} of {value.numel()} entries are not finite)" if value.numel() > 1 else "")


def explain(headline: str, faults: list[str], *, processes: int = 1) -> FloatingPointError:
    """The error for a number that is not finite: what, why, and how to repair it."""
    if faults:
        cause = "; ".join(faults) + ". Repair these entries (remove or impute data, start parameters at finite values)"
    else:
        cause = "every entry of the batch and every parameter is finite, so the loss itself overflows or leaves its "
        cause += "domain. Lower the learning rate, give clip=, or check the model's scales"
        cause += "; or the cause is in another process's batch" if processes > 1 else ""
    return FloatingPointError(f"fit: {headline}: {cause}. This step was not made: the parameters are as before it.")


def _named(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _named(f"{name}[{key!r}]", part)
    elif isinstance(value, tuple | list):
        for key, part in enumerate(value):
            yield from _named(f"{name}[{key}]", part)
