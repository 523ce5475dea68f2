"""Random states of torch, CUDA, Python and NumPy: kept, put back, and set for one step.

Two streams keep a fit reproducible. The *loader* draws from the global generators, as the user
seeded them. The *loss* draws, in step t, from a stream that depends on the fit's seed and on t
alone. So the noise of a step does not depend on how the batch was made (how many workers, how many
processes), and replaying an epoch's batches without their steps leaves the loader's stream exactly
where it was.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Generator

RandomState: TypeAlias = dict[str, Any]
"""Tensors, numbers and tuples of them only, so that `torch.load(weights_only=True)` reads it."""


def capture(generators: Sequence[Generator] = ()) -> RandomState:
    """The global random states and those of `generators`."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 -- the global generator is what users' data sets draw from
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "generators": [generator.get_state() for generator in generators],
    }


def restore(state: RandomState, generators: Sequence[Generator] = ()) -> None:
    """Put back what `capture` took."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_initialized():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))  # noqa: NPY002
    for generator, own in zip(generators, state["generators"], strict=True):
        generator.set_state(own)


@contextmanager
def noise(seed: int, index: int) -> Iterator[None]:
    """Everything drawn inside follows from (seed, index); outside, nothing has been drawn."""
    before = capture()
    # torch.manual_seed queues a call for every backend, used or not: 100 microseconds more than
    # this.
    torch.default_generator.manual_seed(seed + index)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed + index)
    random.seed(seed + index)
    np.random.seed((seed + index) % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        restore(before)


def new_seed() -> int:
    """A seed drawn from torch's global generator."""
    return int(torch.randint(2**62, ()))


def generators_of(loader: object) -> list[Generator]:
    """The generators of its own that a data loader draws from: its, its
    samplers' and its data set's.
    """
    batches = getattr(loader, "batch_sampler", None)
    parts = [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
    owned = [getattr(part, "generator", None) for part in [*parts, getattr(loader, "dataset", None)]]
    return list({id(one): one for one in owned if isinstance(one, Generator)}.values())
