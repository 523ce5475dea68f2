"""Initial values of the members' vectors r and s."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Initialisation: TypeAlias = Callable[[int, int], Tensor]
"""(members, width) -> the vectors of all members, [member, width]."""


def near_one(scale: float = 0.5) -> Initialisation:
    """Entries ~ N(1, scale^2), independent; 0.5 as published for BatchEnsemble and LP-BNN.

    >>> near_one(0.0)(2, 3)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    if not scale >= 0:
        raise ValueError(f"near_one: the standard deviation is a number from 0, not {scale}")
    return _NearOne(scale)


def random_signs(probability: float = 0.5) -> Initialisation:
    """Entries +1 with this probability, else -1, independent: every |weight| of every member is
    that of the network.

    >>> random_signs()(4, 100).abs().unique()
    tensor([1.])
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"random_signs: the probability of +1 lies between 0 and 1, not at {probability}")
    return _RandomSigns(probability)


class _NearOne:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, members: int, width: int) -> Tensor:
        return 1 + self.scale * torch.randn(members, width)


class _RandomSigns:
    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, members: int, width: int) -> Tensor:
        return torch.where(torch.rand(members, width) < self.probability, 1.0, -1.0)
