"""Tensors of independent normal entries, and the shape of a draw for every example."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class NormalTensor:
    """Independent normal entries; a standard deviation of 0 where an entry is certain.

    Attributes:
        loc: means, which stand in the place of the parameter.
        scale: standard deviations, of the same shape.
    """

    loc: Tensor
    scale: Tensor

    def draw(self) -> Tensor:
        """One draw for the whole batch."""
        return torch.addcmul(self.loc, self.scale, torch.randn_like(self.scale))


Find: TypeAlias = Callable[[Tensor | None], NormalTensor | None]
"""The distribution behind a tensor that a layer was called with, None of what is certain."""


def leading(x: Tensor, batch: int, trailing: int) -> tuple[int, ...]:
    """(batch, 1, ...) where the first axis is the batch beyond doubt, otherwise (1, 1, ...): one
    draw for all.

    Beyond doubt: of its size, and no other of the axes before the `trailing` ones has it.
    """
    axes = tuple(x.shape[: x.dim() - trailing])
    first = axes[:1] == (batch,) and batch not in axes[1:]
    return (batch if first else 1, *(1,) * (len(axes) - 1)) if axes else ()
