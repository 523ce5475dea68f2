"""Choices between entries by a certain mask: `where` and `masked_fill`."""

from typing import Any

import torch
from torch import Tensor

from bayesnn.moments.table import moment_rule
from bayesnn.moments.value import Moments, loc_of, variance_of


@moment_rule(torch.where)
def _where(condition: Any, input: Any, other: Any) -> Moments:
    """Entries of the one where a certain condition holds, of the other elsewhere: exact."""
    loc = torch.where(condition, loc_of(input), loc_of(other))
    first, second = (loc.new_zeros(()) if (v := variance_of(value)) is None else v for value in (input, other))
    return Moments(loc, torch.where(condition, first, second).expand_as(loc))


@moment_rule(Tensor.where)
def _where_of_tensor(input: Any, condition: Any, other: Any) -> Moments:
    return _where(condition, input, other)


@moment_rule(torch.masked_fill, Tensor.masked_fill)
def _masked_fill(input: Any, mask: Any, value: Any) -> Moments:
    return _where(mask, value, input)
