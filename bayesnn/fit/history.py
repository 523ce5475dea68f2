"""What a fit hands back, and what it has to remember while it runs."""

from copy import deepcopy
from dataclasses import dataclass, field

from torch import Tensor, nn

from bayesnn.fit.convergence import still_falling
from bayesnn.fit.randomness import RandomState


@dataclass(frozen=True)
class History:
    """What happened in a fit; epochs count from 0.

    Attributes:
        loss: mean loss of each epoch's steps, in the loss's own unit (nats for an ELBO).
        validation: what `validate` returned after each epoch; empty without one.
        epochs: how many epochs were run, those before an interruption included.
        steps: how many optimiser steps.
        stopped: "epochs" (all were run) or "patience" (no improvement for that many epochs).
        best_epoch: the epoch of the smallest validation value; None without `validate`.

    >>> history = History([8.0, 2.0], [], 2, 20, "epochs", None)
    >>> print(history)
    2 epochs, 20 steps, stopped by 'epochs', loss 8 at first and 2 at last
    >>> history.still_falling  # of two epochs nothing can be said
    False
    """

    loss: list[float]
    validation: list[float]
    epochs: int
    steps: int
    stopped: str
    best_epoch: int | None

    @property
    def still_falling(self) -> bool:
        """Whether the loss still fell at the end: more epochs or a larger learning rate are due.

        By the rule of `bayesnn.fit.convergence.still_falling`: with n = epochs // 8 >= 5, the mean
        of the last n losses lies below that of the n before by more than 3 standard errors of
        their difference, and by more than 1e-5 of their size. Of settled losses with independent
        normal noise 0.9 % give a false alarm after 40 epochs, 0.2 % after 600. False is no proof
        of convergence.
        """
        return still_falling(self.loss)

    def __str__(self) -> str:
        """One line: how long, why it stopped, the loss, and whether that still fell."""
        text = f"{self.epochs} epochs, {self.steps} steps, stopped by {self.stopped!r}"
        if self.loss:
            text += f", loss {self.loss[0]:.4g} at first and {self.loss[-1]:.4g} at last"
        if self.best_epoch is not None:
            text += f", best epoch {self.best_epoch} with {self.validation[self.best_epoch]:.4g}"
        return text + (", still falling" if self.still_falling else "")


@dataclass
class RunState:
    """Where a fit stands: with the states of loss and optimiser, all that the steps to come depend
    on.

    Attributes:
        seed: from which the noise of every step and of the validation follows.
        start: random state of each process at the start of the epoch under way, from which its
            batches follow.
        epoch: epochs completed.
        batch: batches of the epoch under way that were trained on.
        steps: optimiser steps in all.
        total: sum of the losses of the epoch under way.
        loss, validation, best_epoch: as in `History`, so far.
        stale: epochs since the best one.
        best: the loss module's state after the best epoch, where it is to be restored.
    """

    seed: int
    start: list[RandomState]
    epoch: int = 0
    batch: int = 0
    steps: int = 0
    total: float = 0.0
    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    stale: int = 0
    best_epoch: int | None = None
    best: dict[str, Tensor] | None = None

    def record(self, value: float) -> None:
        """One more step, with this loss."""
        self.total += value
        self.batch += 1
        self.steps += 1

    def close_epoch(self, start: list[RandomState], validation: float | None, keep: nn.Module | None) -> None:
        """End the epoch: its mean loss, its validation value, and `keep`'s
        state if it is the best so far.
        """
        if not self.batch:
            raise ValueError(
                f"fit: the loader gave no batch in epoch {self.epoch + 1}; it must be iterable anew each time"
            )
        self.loss.append(self.total / self.batch)
        if validation is not None:
            self.validation.append(validation)
            improved = self.best_epoch is None or validation < self.validation[self.best_epoch]
            self.stale = 0 if improved else self.stale + 1
            if improved:
                self.best_epoch = self.epoch
                self.best = None if keep is None else dict(deepcopy(keep.state_dict()))
        self.start, self.epoch, self.batch, self.total = start, self.epoch + 1, 0, 0.0

    def stopped(self, epochs: int, patience: int | None) -> str | None:
        """Why the fit is over, or None."""
        if patience is not None and self.stale >= patience:
            return "patience"
        return "epochs" if self.epoch >= epochs else None

    def history(self, stopped: str) -> History:
        """The history that `fit` returns."""
        return History(list(self.loss), list(self.validation), self.epoch, self.steps, stopped, self.best_epoch)
