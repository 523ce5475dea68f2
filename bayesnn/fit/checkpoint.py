"""A run on disk: written atomically, refused by any other run, read without executing anything."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesnn.fit.batches import length
from bayesnn.fit.damage import fault_of
from bayesnn.fit.history import RunState
from bayesnn.fit.randomness import generators_of

VERSION = 1


class Stateful(Protocol):
    """What a checkpoint keeps: a module, an optimiser, a schedule."""

    def state_dict(self) -> Any:
        """Its state."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take on that state."""


class Checkpoint:
    """One file with the states of `parts` and of the run.

    Args:
        path: the file; its folder is made where it is missing.
        parts: {name: part}, read back in this order; None for what this run does not have.
        fingerprint: what a run must share with the file to go on from it.
        writes: whether this process writes (process 0 does).
    """

    def __init__(
        self,
        path: str | Path,
        parts: Mapping[str, Stateful | None],
        fingerprint: Mapping[str, Any],
        *,
        writes: bool = True,
    ) -> None:
        self.path = Path(path)
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.fingerprint = dict(fingerprint)
        self.writes = writes

    def read(self) -> RunState | None:
        """Set the parts as the file says and return the run's state; None where there is no file.

        Raises:
            ValueError: not a checkpoint, that of another run, or one with missing parts or with
                numbers that are not finite; nothing was changed.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            version, theirs = content["version"], content["fingerprint"]
        except Exception as error:
            raise ValueError(
                f"fit: {self.path} is not a checkpoint of fit, or it is damaged; give another path, or remove it"
            ) from error
        self._check({"version": version, **theirs})
        if fault := fault_of(content, self.parts):
            raise ValueError(
                f"fit: the checkpoint {self.path} is damaged: {fault}. Nothing was changed; put back a copy of the "
                f"file, or remove it to start anew"
            )
        for name, part in self.parts.items():
            part.load_state_dict(content["parts"][name])
        return RunState(**content["run"])

    def write(self, run: RunState) -> None:
        """Replace the file, at once or not at all."""
        if not self.writes:
            return
        parts = {name: _plain(part.state_dict(), name) for name, part in self.parts.items()}
        content = {"version": VERSION, "fingerprint": self.fingerprint, "parts": parts, "run": vars(run)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own, as two processes may write to one path.
        partial = self.path.with_name(f"{self.path.name}.{uuid4().hex}.partial")
        try:
            with open(partial, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _check(self, theirs: Mapping[str, Any]) -> None:
        for key, ours in {"version": VERSION, **self.fingerprint}.items():
            if (other := theirs.get(key)) != ours:
                raise ValueError(
                    f"fit: the checkpoint {self.path} is of another {key}: {_difference(other, ours)}. Nothing was "
                    f"changed; give another path, or remove the file to start anew"
                )


def fingerprint(
    loss: nn.Module, optimizer: Optimizer, scheduler: object, loader: Iterable[Any], processes: int
) -> dict[str, Any]:
    """What makes a run this run: its parameters, their random subset, its
    optimiser, its data's length.
    """
    subset = getattr(getattr(getattr(loss, "model", None), "subset", None), "fingerprint", None)
    state = {name: value for name, value in loss.state_dict().items() if isinstance(value, Tensor)}
    groups = [len(group["params"]) for group in optimizer.param_groups]
    return {
        "model": {name: f"{value.dtype} {list(value.shape)}" for name, value in state.items()},
        "subset": subset() if callable(subset) else None,
        "optimizer": f"{type(optimizer).__name__} over groups of {groups} parameters",
        "schedule": None if scheduler is None else type(scheduler).__name__,
        "number of batches": length(loader),
        "number of generators of the loader": len(generators_of(loader)),
        "number of processes": processes,
    }


def _difference(theirs: Any, ours: Any) -> str:
    """What the file has and what this run has, the first entry that differs
    where both are dicts.
    """
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        name = next(name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name))
        return f"{name!r} is {theirs.get(name, 'missing')} there and {ours.get(name, 'missing')} here"
    return f"it has {theirs}, this run {ours}"


def _plain(value: Any, name: str) -> Any:
    """The state with NumPy's numbers as Python's; an error for what
    `torch.load(weights_only=True)` would refuse.
    """
    if isinstance(value, np.generic):  # before float: np.float64 is one, and is refused when read
        return value.item()
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, bool | int | float | str | Counter):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(part, f"{name}[{key!r}]") for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)([_plain(part, f"{name}[{index}]") for index, part in enumerate(value)])
    raise TypeError(
        f"fit: the state of {name} is a {type(value).__name__}, which a checkpoint does not keep: it holds tensors, "
        f"numbers, texts and their dicts, lists and tuples; fit without a checkpoint, or change what makes it"
    )
