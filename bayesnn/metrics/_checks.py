"""What every metric does first: arrays become tensors, and what cannot be judged is refused with
the repair.

Reals are computed in float64, because a mean of 10^5 float32 terms loses the digits that a
standard error is about.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array: TypeAlias = Tensor | npt.ArrayLike
"""Anything array-like: a tensor (its device is kept), a NumPy array, a list of numbers."""

# room for rounding: bfloat16 softmaxes deviate by up to 2^-9, printed tables by a little more
SUM_TOLERANCE = 5e-3


def tensor(value: Array) -> Tensor:
    """A tensor of `value`, shared where that is possible; a read-only or
    reversed NumPy array is copied.
    """
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.as_tensor(array)


def reals(where: str, name: str, value: Array, axes: str | None = None, *, infinite: bool = False) -> Tensor:
    """Detached float64 values without nan (nor inf, unless `infinite`), of the
    axes named, e.g. "draw batch".
    """
    result = tensor(value).detach()
    if result.is_complex():
        raise TypeError(f"{where}: {name} is complex; give its real part.")
    # MPS devices have no float64.
    result = (result.cpu() if result.device.type == "mps" else result).double()
    if axes is not None:
        check_axes(where, name, result, axes)
    check_finite(where, name, result, infinite=infinite)
    return result


def check_axes(where: str, name: str, value: Tensor, axes: str) -> None:
    """The number of axes is that of `axes` and none is empty."""
    words = axes.split()
    if value.ndim != len(words):
        hint = ""
        if words == ["batch", "class"] and value.ndim == 3:
            hint = " Of draws [draw, batch, class], judge the mean predictive: probs.mean(0)."
        elif words == ["batch", "class"] and value.ndim == 1:
            hint = " Of one probability an example, stack both classes: torch.stack([1 - p, p], -1)."
        elif words[0] == "draw" and value.ndim == len(words) - 1:
            hint = " The draw axis comes first; of a single draw, use value[None]."
        raise ValueError(
            f"{where}: {name} must have the axes [{', '.join(words)}], not the shape {list(value.shape)}.{hint}"
        )
    if value.numel() == 0:
        raise ValueError(f"{where}: {name} of shape {list(value.shape)} is empty; give at least one example.")


def check_finite(where: str, name: str, value: Tensor, *, infinite: bool = False) -> None:
    """Neither nan nor (unless allowed) inf; the message gives the first position."""
    bad = value.isnan() if infinite else ~value.isfinite()
    if bool(bad.any()):
        first = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{where}: {name}{first} is {value[tuple(first)].item()} ({int(bad.sum())} of {value.numel()} values are "
            f"{'nan' if infinite else 'nan or infinite'}); find what computed it, or leave these examples out."
        )


def check_same_batch(where: str, **named: Tensor) -> None:
    """The last axes of all tensors agree."""
    shapes = {name: value.shape[-1] for name, value in named.items()}
    if len(set(shapes.values())) > 1:
        text = ", ".join(f"{name} has {size}" for name, size in shapes.items())
        raise ValueError(f"{where}: the numbers of examples differ: {text}; give the same examples in the same order.")


def check_probabilities(where: str, name: str, value: Tensor) -> None:
    """Along the last axis: within [0, 1], summing to one, at least two classes."""
    if value.shape[-1] < 2:
        raise ValueError(f"{where}: {name} has one class; of one probability p, give torch.cat([1 - p, p], -1).")
    outside = torch.maximum(-value.amin(-1), value.amax(-1) - 1)
    deviation = torch.maximum((value.sum(-1) - 1).abs(), outside)
    if bool((deviation > SUM_TOLERANCE).any()):
        position = [int(i) for i in torch.unravel_index(deviation.argmax(), deviation.shape)]
        row = value[tuple(position)]
        raise ValueError(
            f"{where}: {name} are not probabilities: at {name}{position} they lie between {float(row.min()):.4g} and "
            f"{float(row.max()):.4g} and sum to {float(row.sum()):.4g} (largest deviation "
            f"{float(deviation.max()):.3g}; {SUM_TOLERANCE:g} is allowed). Of logits, give logits.softmax(-1)."
        )


def probabilities_and_labels(where: str, probs: Array, labels: Array) -> tuple[Tensor, Tensor]:
    """Probabilities [batch, class] in float64 and labels [batch] as integers, both checked."""
    p = reals(where, "probs", probs, "batch class")
    check_probabilities(where, "probs", p)
    y = tensor(labels).detach().to(p.device)
    if y.is_floating_point() or y.is_complex():
        raise TypeError(
            f"{where}: labels are {str(y.dtype).removeprefix('torch.')}; give class numbers: labels.long()."
        )
    if y.ndim == 2 and y.shape == p.shape:
        raise ValueError(f"{where}: labels {list(y.shape)} look one-hot; give class numbers: labels.argmax(-1).")
    check_axes(where, "labels", y, "batch")
    y = y.long()
    if len(p) != len(y):
        raise ValueError(f"{where}: probs has {len(p)} examples and labels has {len(y)}; give one label an example.")
    outside = (y < 0) | (y >= p.shape[1])
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise ValueError(
            f"{where}: labels[{first}] = {int(y[first])} is outside the classes 0 to {p.shape[1] - 1} of probs "
            f"({int(outside.sum())} such labels); number the classes from 0, and leave ignored examples out."
        )
    return p, y


def check_level(where: str, level: float, name: str = "level") -> None:
    """A probability strictly between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"{where}: {name} = {level} must lie strictly between 0 and 1, e.g. 0.95.")


def check_count(where: str, name: str, value: int, least: int) -> None:
    """A count of at least `least`."""
    if value < least:
        raise ValueError(f"{where}: {name} = {value} must be at least {least}.")
