"""Digits to learn from and to be tested on, and images that no digit should be
read from with confidence.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import data

from examples.studies.common.options import Options

LETTERS, ROTATED, OTHERS = "letters", "rotated digits", "other digits"


@dataclass(frozen=True)
class Images:
    """A set of images [n, 1, 28, 28]; `y` is None where they have no class of ours."""

    x: Tensor
    y: Tensor | None


@dataclass(frozen=True)
class Sets:
    """All that a run sees.

    Attributes:
        train: what the networks learn from, and what all choices are made with.
        test: the other digits; they are looked at once, in the end.
        outside: {kind: images out of distribution}.
    """

    train: TensorDataset
    test: Images
    outside: dict[str, Images]

    @property
    def everywhere(self) -> dict[str, Images]:
        """The test set and those outside, by name."""
        return {"test": self.test, **self.outside}


def load(options: Options) -> Sets:
    """MNIST's 5,000 images split into training and test, and three kinds of
    images from outside.
    """
    generator = torch.Generator().manual_seed(options.seed)
    train, _, rest = data.split(*data.mnist5k(), train=options.train_size, generator=generator)
    test = Images(*(part[: options.largest].to(options.device) for part in rest.tensors))
    n = min(options.outside, len(test.x))
    x, y = data.sklearn_digits()
    some = torch.randperm(len(x), generator=generator)[: options.outside]
    assert test.y is not None
    outside = {
        LETTERS: Images(data.letters(options.outside, generator=generator).to(options.device), None),
        ROTATED: Images(data.rotated(test.x[:n], 90.0), test.y[:n]),
        OTHERS: Images(x[some].to(options.device), y[some].to(options.device)),
    }
    return Sets(TensorDataset(*(part.to(options.device) for part in train.tensors)), test, outside)


def batches(dataset: TensorDataset) -> DataLoader[tuple[Tensor, ...]]:
    """One pass over a data set in order: what curvature is summed over. Small batches stay in the
    processor's cache.
    """
    return DataLoader(dataset, batch_size=25)


def folds(train: TensorDataset, count: int) -> Iterator[tuple[TensorDataset, TensorDataset]]:
    """(training part, validation part) of a cross-validation: every image is held out once."""
    x, y = train.tensors
    number = torch.arange(len(x), device=x.device) % count
    for i in range(count):
        held = number == i
        yield TensorDataset(x[~held], y[~held]), TensorDataset(x[held], y[held])
