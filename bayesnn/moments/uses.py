"""How often a pass uses the random entries of a parameter: two uses are correlated."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesnn.moments.place import place

Entries = Callable[[Tensor], Tensor]
"""What takes the used entries out of a tensor of the parameter's shape."""


class RepeatedUse(NotImplementedError):
    """A random entry of a parameter is used twice, where both uses may meet in one output."""


@dataclass(frozen=True)
class _Use:
    entries: Entries
    words: Tensor | None  # the rows of a lookup, [batch, number]


@dataclass
class Uses:
    """The uses of one random parameter in one pass.

    Args:
        name: of the parameter in its network.
        variance: of its entries; one of variance 0 may be used any number of times.
        batch: the number of examples. Lookups of the same row in two examples never meet.
    """

    name: str
    variance: Tensor
    batch: int
    taken: list[_Use] = field(default_factory=list)

    def take(self, what: str, entries: Entries) -> None:
        """Note a use of these entries.

        Args:
            what: the operation, for the message.
            entries: what takes them out of a tensor of the parameter's shape.

        Raises:
            RepeatedUse: an earlier use shares a random entry with it.
        """
        self._note(what, _Use(entries, None))

    def look_up(self, what: str, words: Tensor) -> None:
        """Note a lookup of rows, of integers [batch, ...] or [position, batch, ...]."""
        self._note(what, _Use(lambda places: places[words], by_example(words, self.batch)))

    def _note(self, what: str, use: _Use) -> None:
        if any(self._meet(earlier, use) for earlier in self.taken):
            raise RepeatedUse(
                f"moments: {what} at {place()} uses the random {self.name!r} a second time in one pass; the two uses "
                "are correlated, which means and variances alone cannot carry. Use MeanField, whose draws can, "
                f"linearised_distribution, or a subset without {self.name!r}"
            )
        self.taken.append(use)

    def _meet(self, first: _Use, second: _Use) -> bool:
        if first.words is not None and second.words is not None:
            same = first.words.unsqueeze(2) == second.words.unsqueeze(1)
            rows = first.words[same.any(2)]
            return bool((self.variance[rows] > 0).any())
        places = torch.arange(self.variance.numel(), device=self.variance.device).reshape(self.variance.shape)
        used, again = first.entries(places).flatten(), second.entries(places).flatten()
        return bool((self.variance.flatten()[used[torch.isin(used, again)]] > 0).any())


def by_example(words: Tensor, batch: int) -> Tensor:
    """Integers [batch, number] of some whose first or second axis is the batch.

    Without such an axis all of them belong to each example.
    """
    if words.dim() and words.shape[0] == batch:
        return words.reshape(batch, -1)
    if words.dim() > 1 and words.shape[1] == batch:
        return words.movedim(1, 0).reshape(batch, -1)
    return words.reshape(1, -1).expand(batch, -1)


def repeats(words: Tensor, batch: int) -> bool:
    """Whether an example looks a row up twice.

    >>> repeats(torch.tensor([[1, 2], [2, 1]]), 2), repeats(torch.tensor([[1, 2], [3, 3]]), 2)
    (False, True)
    """
    ordered = by_example(words, batch).sort(1).values
    return bool((ordered[:, 1:] == ordered[:, :-1]).any())
