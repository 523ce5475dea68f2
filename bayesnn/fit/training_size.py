"""The examples that a loader gives, compared with the size that a model was built with."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from bayesnn.fit.batches import length

_ENDLESS = 100
"""Times its data set that a loader without a length may give in an epoch."""


class TrainingSize:
    """Refuses a likelihood that the batches of a loader weigh too little, as far as can be seen.

    With size=None each batch counts as all data, so that two of them give the posterior of one.
    What a loader has is the smaller length of its `dataset` and its `sampler`, or the examples of
    the different batches of a list, and is checked at once. Otherwise batches are counted as they
    come. A model without the attribute `size` is not checked.

    Args:
        owner: who asks, for the messages.
        model: of `size` training examples, or None.
        loader: as given, for all processes.
        processes: that share the loader.

    Raises:
        ValueError: several batches for a model of size=None; more examples than `size`.
    """

    def __init__(self, owner: str, model: object, loader: Iterable[Any], *, processes: int = 1) -> None:
        missing = object()
        size = getattr(model, "size", missing)
        self.owner, self.size = owner, size if isinstance(size, int) else None
        self.held, self.most = _held(loader)
        batches = len(_different(loader)) if isinstance(loader, list | tuple) else length(loader)
        self.counts = (size is None or self.size is not None) and processes == 1
        self.limit: float = math.inf if self.size is None else self.size
        if size is None and (processes > 1 or (batches is not None and batches > 1)):
            raise self._of_one_batch()
        if self.size is not None and self.held:
            if self.size < self.held:
                raise self._too_small(f"has {self.held} training examples", self.held)
            self._compare(self.most, math.ceil(self.most / (batches or 1)))
            self.limit = _ENDLESS * self.size
        if batches is not None and (size is None or self.held):
            self.counts = False
        self.begin(0)

    def begin(self, batch: int) -> None:
        """An epoch begins, after its first batches where a run is resumed."""
        self.batches, self.seen, self.largest, self.whole = batch, 0, 0, not batch
        self.first: list[Any] = []

    def see(self, batch: Any) -> None:
        """Count a batch before it is used; the tensors of the first one again are no new data."""
        if not self.counts:
            return
        leaves = pytree.tree_leaves(batch)
        if self.first and _same(leaves, self.first):
            return
        self.first = self.first or leaves
        self.batches += 1
        self.seen += (found := examples(batch))
        self.largest = max(self.largest, found)
        if self.size is None and self.batches > 1:
            raise self._of_one_batch()
        if self.seen > self.limit:
            raise self._too_small(f"has given {self.seen} training examples in one epoch, and it may go on", None)

    def end(self) -> None:
        """An epoch has ended: the first whole one is compared, and nothing is counted after it."""
        if self.counts and self.whole:
            if self.limit == self.size:
                self._compare(self.seen, self.largest)
            self.counts = False

    def _compare(self, found: int, batch: int) -> None:
        if self.size is not None and self.size > found + batch:
            warnings.warn(
                f"{self.owner}: the model's size is {self.size}, but the loader has {found} training examples, so the "
                f"likelihood counts {self.size / max(found, 1):.2g} times; build the model with size={found}, unless "
                f"an epoch is meant to be a part of the data, or the likelihood to count so often",
                stacklevel=4,
            )

    def _of_one_batch(self) -> ValueError:
        number = f"={self.held}" if self.held else "=<number of training examples>"
        return ValueError(
            f"{self.owner}: the model has size=None, with which each batch counts as all data, but the loader gives "
            f"several batches: the posterior would be that of one of them. Build the model with size{number}; one "
            f"that has no such option needs all data in one batch"
        )

    def _too_small(self, what: str, held: int | None) -> ValueError:
        remedy = f"build the model with size={held}"
        if held is None:
            remedy = (
                "build the model with size=<number of training examples>. An endless loader has to end its epochs; one "
                "whose epochs repeat examples says how many there are by len(loader.dataset)"
            )
        return ValueError(
            f"{self.owner}: the model's size is {self.size}, but the loader {what}, so the likelihood would be scaled "
            f"by too little; {remedy}"
        )


def examples(batch: Any) -> int:
    """How many a batch has: the length of the first tensor of y in (x, y), else of all."""
    parts = [batch[1], batch] if isinstance(batch, tuple | list) and len(batch) > 1 else [batch]
    leaves = [leaf for part in parts for leaf in pytree.tree_leaves(part) if isinstance(leaf, Tensor) and leaf.dim()]
    return len(leaves[0]) if leaves else 0


def _held(loader: object) -> tuple[int, int]:
    """The least and the most training examples that the loader may mean; 0: it does not say."""
    if isinstance(loader, list | tuple):
        found = [sum(map(examples, _different(loader)))]
    elif getattr(loader, "batch_sampler", None) is None and hasattr(loader, "batch_size"):
        found = []  # batch_size=None: the data set's entries are batches already
    else:
        found = [n for part in ("dataset", "sampler") if (n := length(getattr(loader, part, ())))]
    return min(found, default=0), max(found, default=0)


def _different(batches: Iterable[Any]) -> list[Any]:
    """The batches of a list without those that are the same tensors again."""
    return list({tuple(map(id, pytree.tree_leaves(batch))): batch for batch in batches}.values())


def _same(leaves: list[Any], others: list[Any]) -> bool:
    return len(leaves) == len(others) and all(a is b for a, b in zip(leaves, others, strict=True))
