"""Whether two parts of models (priors, likelihoods) are equal, where they were
made twice or copied.
"""

from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor


def equal(one: Any, other: Any) -> bool:
    """Whether two objects are of one type and have equal contents, tensors and functions included.

    Functions are equal where they are the same code around equal values.

    >>> from bayesnn import likelihoods
    >>> equal(likelihoods.normal(0.1), likelihoods.normal(0.1)), equal(likelihoods.normal(0.1), likelihoods.normal(0.2))
    (True, False)
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        if (one.shape, one.dtype, one.is_meta) != (other.shape, other.dtype, other.is_meta):
            return False
        return one.is_meta or torch.equal(one, other.to(one.device))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, FunctionType):
        return one.__code__ is other.__code__ and equal(_around(one), _around(other))
    if isinstance(one, MethodType):
        return equal((one.__func__, one.__self__), (other.__func__, other.__self__))
    if hasattr(one, "__dict__"):
        return equal(vars(one), vars(other))
    return bool(one == other)


def _around(function: FunctionType) -> tuple[Any, ...]:
    """The values that a function has beside its code."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return function.__defaults__, function.__kwdefaults__, cells
