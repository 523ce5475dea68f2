"""Arrays in, checked NumPy vectors out."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bayesnn.metrics import Array
from bayesnn.metrics._checks import reals

Vector: TypeAlias = npt.NDArray[np.float64]


def vector(where: str, name: str, value: Array) -> Vector:
    """[batch] as float64 on the CPU, without nan."""
    return reals(where, name, value, "batch").cpu().numpy()


def matrix(where: str, name: str, value: Array) -> Vector:
    """[draw, batch] as float64 on the CPU, without nan."""
    return reals(where, name, value, "draw batch").cpu().numpy()


def check_lengths(where: str, **named: Vector) -> None:
    """All vectors are equally long."""
    if len({len(value) for value in named.values()}) > 1:
        text = ", ".join(f"{name} has {len(value)}" for name, value in named.items())
        raise ValueError(f"{where}: the numbers of points differ: {text}; give the same points in the same order.")
