"""What an objective leaves on the guide that it trains: how much it weighed the KL divergence."""

from contextlib import suppress
from typing import Any

_NOTE = "_bayesnn_kl_weight"  # in an attribute, which copies and pickles keep; by a name that no guide has itself


def note_kl_weight(guide: Any, kl_weight: float | None) -> None:
    """Keep the weight on a guide, a module or a function; a bound method takes no note."""
    with suppress(AttributeError):
        setattr(guide, _NOTE, kl_weight)


def kl_weight_of(guide: Any) -> float | None:
    """The weight of the KL in the loss that trained a guide last; None where no loss of ours did.

    >>> from torch import nn
    >>> guide = nn.Linear(1, 1)
    >>> note_kl_weight(guide, 0.1)
    >>> kl_weight_of(guide)
    0.1
    """
    weight: float | None = getattr(guide, _NOTE, None)
    return weight
