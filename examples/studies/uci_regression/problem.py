"""A regression problem: training and test data of one split, in units of the
training targets' deviation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Data:
    """Inputs [n, d] and targets [n, 1]; iterated, it gives all of them, or
    shuffled batches of a size.
    """

    x: Tensor
    y: Tensor
    batch: int | None = None

    def __len__(self) -> int:
        """How many batches."""
        return -(-len(self.x) // (self.batch or len(self.x)))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each example once."""
        if self.batch is None:
            yield self.x, self.y
        else:
            for part in torch.randperm(len(self.x)).split(self.batch):
                yield self.x[part], self.y[part]

    def rows(self, index: Tensor) -> "Data":
        """Some of the examples."""
        return Data(self.x[index], self.y[index])


@dataclass(frozen=True)
class Problem:
    """Standardised by the means and deviations of the training data alone.

    Attributes:
        train, test: what the network sees.
        centre, unit: a target is centre + unit * y in its own unit.
    """

    train: Data
    test: Data
    centre: float
    unit: float


def problem(train: Data, test: Data, *, targets: bool = True) -> Problem:
    """Standardise inputs, and targets if wanted; a column without variation
    only loses its mean.
    """
    mean, deviation = train.x.mean(0), train.x.std(0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    centre, unit = (float(train.y.mean()), float(train.y.std())) if targets else (0.0, 1.0)
    new = [Data((one.x - mean) / deviation, (one.y - centre) / unit) for one in (train, test)]
    return Problem(new[0], new[1], centre, unit)


def folds(examples: int, *, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """`count`-fold cross-validation: (training rows, test rows) of every fold."""
    parts = torch.randperm(examples, generator=torch.Generator().manual_seed(seed)).tensor_split(count)
    return [(torch.cat([*parts[:i], *parts[i + 1 :]]), parts[i]) for i in range(count)]
