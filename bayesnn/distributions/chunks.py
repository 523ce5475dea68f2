"""Functions that need many numbers for each entry, on few entries at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK = 2**12
"""Entries at a time: what some dozens of numbers for each take fits into a processor's cache."""


def in_chunks(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor) -> tuple[Tensor, ...]:
    """A function of the single entries, on `CHUNK` of them at a time: tensors of one shape to a tuple of such."""
    shape = arguments[0].shape
    if shape.numel() <= CHUNK:
        return function(*arguments)
    parts = [function(*part) for part in zip(*(a.reshape(-1).split(CHUNK) for a in arguments), strict=True)]
    return tuple(torch.cat(pieces).reshape(shape) for pieces in zip(*parts, strict=True))
