"""The size of a model against the examples that a loader gives to `fit`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.fit import fit
from bayesnn.fit.training_size import examples
from bayesnn.guides import MeanField, MeanFieldELBO

quiet = partial(fit, progress=False)
EIGHT = torch.ones(8)


class Sized(nn.Module):
    """A loss of a model of `size` examples; counts its calls, that of the warm-up included."""

    def __init__(self, size: object) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(()))
        self.model = nn.Module()
        self.model.size = size
        self.calls = 0

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.calls += 1
        return self.at * x.mean()


class Stream(IterableDataset[Tensor]):
    """Examples without a length."""

    def __init__(self, number: int | None) -> None:
        self.number = number

    def __iter__(self) -> Iterator[Tensor]:
        given = 0
        while given != self.number:
            yield torch.ones(())
            given += 1


class Batches:
    """Batches of two examples, with what attributes a loader may have."""

    def __init__(self, number: int, **attributes: object) -> None:
        self.number = number
        vars(self).update(attributes)

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.number):
            yield torch.ones(2)


class Endless:
    """A sampler of indices for ever."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 0


def test_minibatches_without_a_size_are_refused_before_the_first_step() -> None:
    """Their posterior would be that of one batch: sqrt(10) = 3.16 times too wide, silently."""
    x = torch.randn(40, 3)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    net = nn.Linear(3, 1, bias=False)
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    guide = MeanField(model)
    before = guide.loc.clone()
    with pytest.raises(ValueError, match=r"fit: .*size=None.*several batches.*Build the model with size=40"):
        quiet(MeanFieldELBO()(model, guide), DataLoader(data, 4), epochs=1)
    assert torch.equal(guide.loc, before)
    assert quiet(MeanFieldELBO()(model, guide), DataLoader(data, 40), epochs=2).steps == 2


REFUSED: dict[str, tuple[Callable[[], Any], int | None, int, str]] = {
    "no size": (lambda: DataLoader(EIGHT, 4), None, 1, "size=None.*size=8"),
    "no size, list": (lambda: [torch.ones(2), torch.ones(3)], None, 1, "size=None.*size=5"),
    "no size, no length": (lambda: Batches(2), None, 2, "size=None.*number of training examples"),
    "no size, stream": (lambda: DataLoader(Stream(8), 4), None, 2, "size=None"),
    "small": (lambda: DataLoader(EIGHT, 4), 7, 1, "size is 7, but the loader has 8.*size=8"),
    "small, list": (lambda: [torch.ones(2), torch.ones(3)], 4, 1, "size is 4, but the loader has 5.*size=5"),
    "small, no length": (lambda: Batches(4), 7, 4, "size is 7, but the loader has given 8 training examples"),
    "small, stream": (lambda: DataLoader(Stream(8), 4), 7, 2, "size is 7, but the loader has given 8"),
    "endless stream": (lambda: DataLoader(Stream(None), 4), 8, 3, "given 12 .* endless loader has to end"),
    "endless sampler": (
        lambda: DataLoader(EIGHT, sampler=Endless(), batch_size=8), 8, 101, "given 808 .* endless loader has to end"
    ),
    "subset": (
        lambda: DataLoader(EIGHT, 2, sampler=SubsetRandomSampler(range(6))), 5, 1, "size is 5, but the loader has 6"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str) -> None:
    loader, size, calls, message = REFUSED[kind]
    loss = Sized(size)
    with pytest.raises(ValueError, match=f"fit: .*{message}"):
        quiet(loss, loader(), epochs=1)
    assert loss.calls == calls  # the warm-up, and the steps before it could be known


ACCEPTED: dict[str, tuple[Callable[[], Any], object]] = {
    "one batch without a size": (lambda: DataLoader(EIGHT, 8), None),
    "one batch of a list again": (lambda: [EIGHT] * 3, None),
    "one batch again, of its size": (lambda: [(EIGHT, EIGHT)] * 3, 8),
    "one batch again, without a length": (lambda: Again(3), None),
    "one batch of a stream": (lambda: DataLoader(Stream(4), 4), None),
    "equal": (lambda: DataLoader(EIGHT, 4), 8),
    "equal, stream": (lambda: DataLoader(Stream(8), 4), 8),
    "less than a batch more": (lambda: DataLoader(EIGHT, 3), 9),
    "drop_last": (lambda: DataLoader(EIGHT, 5, drop_last=True), 8),
    "subset": (lambda: DataLoader(EIGHT, 2, sampler=SubsetRandomSampler(range(6))), 6),
    "subset of the size of all": (lambda: DataLoader(EIGHT, 2, sampler=SubsetRandomSampler(range(3))), 8),
    "drawn again": (lambda: DataLoader(EIGHT, 2, sampler=RandomSampler(EIGHT, replacement=True, num_samples=99)), 8),
    "repeated, but says its number": (lambda: Batches(9, dataset=EIGHT), 8),
    "batches as entries": (lambda: DataLoader(torch.ones(4, 2), batch_size=None), 8),
    "batch sampler": (lambda: DataLoader(EIGHT, batch_sampler=BatchSampler(range(8), 4, drop_last=False)), 8),
    "not a number": (lambda: DataLoader(EIGHT, 2), "large"),
    "method": (lambda: DataLoader(EIGHT, 2), torch.ones(3).size),
}


class Again:
    """The same batch, again and again."""

    def __init__(self, number: int) -> None:
        self.number, self.batch = number, torch.ones(2)

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.number):
            yield self.batch


@pytest.mark.parametrize("kind", ACCEPTED)
def test_accepted(kind: str) -> None:
    loader, size = ACCEPTED[kind]
    assert quiet(Sized(size), loader(), epochs=2).epochs == 2


def test_a_loss_without_a_models_size_is_not_checked() -> None:
    loss = Sized(None)
    del loss.model.size
    assert quiet(loss, DataLoader(EIGHT, 2), epochs=1).steps == 4
    del loss.model
    assert quiet(loss, DataLoader(EIGHT, 2), epochs=1).steps == 4


@pytest.mark.parametrize(
    ("loader", "text"),
    [
        (lambda: DataLoader(EIGHT, 2), "size is 11, but the loader has 8 .* counts 1.4 times; .*size=8"),
        (lambda: [torch.ones(2), torch.ones(2)], "size is 11, but the loader has 4 .* counts 2.8 times; .*size=4"),
        (lambda: Batches(4), "size is 11, but the loader has 8 .* counts 1.4 times; .*size=8"),
        (lambda: DataLoader(Stream(8), 2), "size is 11, but the loader has 8 .*size=8"),
    ],
)
def test_a_size_clearly_larger_gives_one_warning(loader: Callable[[], Any], text: str) -> None:
    with pytest.warns(UserWarning, match=f"fit: the model's {text}") as caught:
        quiet(Sized(11), loader(), epochs=3)
    assert len(caught) == 1


def test_a_resumed_epoch_is_not_compared(tmp_path: Any) -> None:
    """Its first batches were trained on before, and are not counted again."""

    def interrupt() -> float:
        raise KeyboardInterrupt

    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        quiet(Sized(8), Batches(4), epochs=2, checkpoint=path, validate=interrupt)
    assert quiet(Sized(8), Batches(4), epochs=2, checkpoint=path).steps == 8


def test_examples_of_a_batch() -> None:
    assert examples((torch.ones(7, 3), torch.ones(3))) == 3  # y's: x may be sequence first
    assert examples(({"a": torch.ones(4, 2)}, None)) == 4
    assert examples({"a": torch.ones(4, 2), "b": torch.ones(())}) == 4
    assert examples(torch.ones(5)) == 5
    assert examples(["text"]) == 0
