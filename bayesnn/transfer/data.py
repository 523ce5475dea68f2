"""One transfer problem: a frozen source, target data to learn from, and target
data to be judged on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesnn.models.recast.source import Source, check_source, predictions


@dataclass(frozen=True, eq=False)
class TransferData:
    """A source's predictions f(x) on the link scale, (x, y) of the target to learn from and (x, y)
    to be judged on.

    Attributes:
        source: frozen: a network, a function x -> f [batch], or None where x is f itself.
        x_train: inputs of the target's training examples, [batch, ...].
        y_train: their targets [batch], real numbers, or zeros and ones for a binary response.
        x_test: inputs of the test examples.
        y_test: their targets.
        binary: whether y is zero or one; f is a logit then.
        link: for a binary source that gives probabilities: `torch.logit`.
        x_source: inputs of the source's own data, for methods that pool; None where they are not
            to be had.
        y_source: their targets.

    Raises:
        TypeError: a source that cannot be called.
        ValueError: a source that is not frozen; fewer than three training examples; lengths that
            do not fit; targets that are not finite, or not zero and one.

    >>> f = torch.linspace(-2, 2, 20)
    >>> data = TransferData(None, f, 2 * f, f, 2 * f)
    >>> data.f_train.shape
    torch.Size([20])
    """

    source: Source
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    binary: bool = False
    link: Callable[[Tensor], Tensor] | None = None
    x_source: Tensor | None = None
    y_source: Tensor | None = None

    def __post_init__(self) -> None:
        check_source(self.source, "TransferData")
        pairs = {"train": (self.x_train, self.y_train), "test": (self.x_test, self.y_test)}
        if (self.x_source is None) != (self.y_source is None):
            raise ValueError("TransferData: the source's own data are both, x_source and y_source, or neither")
        if self.x_source is not None and self.y_source is not None:
            pairs["source"] = (self.x_source, self.y_source)
        for part, (x, y) in pairs.items():
            if y.dim() != 1 or len(x) != len(y):
                raise ValueError(
                    f"TransferData: y_{part} must be [batch] with one target for each of {len(x)} inputs, not "
                    f"{list(y.shape)}"
                )
            if not bool(torch.isfinite(y.double()).all()):
                raise ValueError(f"TransferData: y_{part} is not finite everywhere; leave those examples out")
            if self.binary and not bool(((y == 0) | (y == 1)).all()):
                raise ValueError(f"TransferData: y_{part} of a binary response is zero or one; code it so")
        if len(self.y_train) < 3:
            raise ValueError(f"TransferData: {len(self.y_train)} training examples are too few; at least 3 are needed")

    @property
    def f_train(self) -> Tensor:
        """The source's predictions for the training examples, [batch], double."""
        return predictions(self.source, self.link, self.x_train, "TransferData")

    @property
    def f_test(self) -> Tensor:
        """The source's predictions for the test examples, [batch], double."""
        return predictions(self.source, self.link, self.x_test, "TransferData")
