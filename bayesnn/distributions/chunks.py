"""Functions that need many numbers for each entry are called on few entries at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK = 2**12
"""Entries at a time: what some dozens of numbers for each take fits into a processor's cache."""


def in_chunks(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor) -> tuple[Tensor, ...]:
    """The results of a function of single entries, called on `CHUNK` of them at a time.

    It takes tensors of one shape and returns a tuple of tensors of that shape.
    """
    shape = arguments[0].shape
    if shape.numel() <= CHUNK:
        return function(*arguments)
    parts = [function(*part) for part in zip(*(a.reshape(-1).split(CHUNK) for a in arguments), strict=True)]
    return tuple(torch.cat(pieces).reshape(shape) for pieces in zip(*parts, strict=True))
