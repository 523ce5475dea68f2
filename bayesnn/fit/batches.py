"""Batches: handed to the loss, moved to its device, replayed up to where a run was interrupted."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn.fit.history import RunState
from bayesnn.fit.randomness import generators_of, restore


def call(loss: nn.Module, batch: Any) -> Any:
    """loss(*batch) for a tuple or list, as `DataLoader` makes them; loss(batch)
    for one tensor or a dict.
    """
    return loss(*batch) if isinstance(batch, tuple | list) else loss(batch)


def move(batch: Any, device: torch.device | None) -> Any:
    """The batch with every tensor in its tuples, lists and dicts on the device
    (None: where it is).
    """
    if device is None:
        return batch
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        moved = [move(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch.to(device) if hasattr(batch, "to") else batch


def device_of(loss: nn.Module) -> torch.device | None:
    """Where the loss lives: with its first parameter or buffer, else with the
    network that its model holds.
    """
    # a guide that was not called yet has no parameters
    net = getattr(getattr(loss, "model", None), "net", None)
    for module in (loss, net):
        if isinstance(module, nn.Module):
            for tensor in (*module.parameters(), *module.buffers()):
                return tensor.device
    return None


def first_batch(loader: Iterable[Any], owner: str = "fit") -> Any:
    """The first batch; `owner` asks for it, in the messages.

    Raises:
        TypeError: the loader is a one-shot iterator.
        ValueError: it is empty.
    """
    iterator = iter(loader)
    if iterator is loader:
        raise TypeError(
            f"{owner}: the loader is an iterator, which can be read only once; give a DataLoader or a list of batches"
        )
    for batch in iterator:
        return batch
    raise ValueError(
        f"{owner}: the loader is empty: it gives no batch; check its data set, and drop_last where there are "
        f"fewer examples than batch_size"
    )


def length(sized: Any) -> int | None:
    """Its length; None where it cannot tell, as a loader over an iterable data set."""
    try:
        return len(sized)
    except (TypeError, NotImplementedError):
        return None


def remaining(loader: Iterable[Any], state: RunState, rank: int) -> Iterator[Any]:
    """The epoch's batches from `state.batch` on.

    The epoch's random state is set, its iterator made anew and the batches before are drawn and
    dropped: what follows is what would have followed, with shuffling, augmentation and worker
    processes.
    """
    restore(state.start[rank], generators_of(loader))
    if hasattr(loader, "_num_iter_calls"):
        # a Fabric loader counts epochs here and shuffles its shards by them
        loader._num_iter_calls = state.epoch
    iterator = iter(loader)
    missing = object()
    for _ in range(state.batch):
        if next(iterator, missing) is missing:
            raise ValueError(
                f"fit: the checkpoint was written after batch {state.batch} of an epoch, but the loader gives fewer; "
                f"resume with the loader that the run began with"
            )
    return iterator
