"""One pass over the training data, shared by all structures of the curvature."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from bayesnn.functional import Inputs, alone, batch_size, progress_bar, to_device
from bayesnn.guides.fisher.exact import ExactFisher
from bayesnn.guides.fisher.protocol import OutputFisher
from bayesnn.handlers import prefixed
from bayesnn.models import BNN
from bayesnn.models.inputs import check_inputs
from bayesnn.models.observe import check_target

Add = Callable[[Inputs, "BatchTargets"], None]
"""(x, targets): add a batch. It hands the outputs of every example to
`targets`, once or several times.
"""


def check_repeatable(loader: Iterable[Any], caller: str) -> None:
    """Refuse a loader that can be read only once, where there are several passes."""
    if isinstance(loader, Iterator):
        raise TypeError(
            f"{caller}: it passes over the data several times, but a {type(loader).__name__} can be read only once; "
            "give a DataLoader or a list of batches"
        )


def log_likelihoods(model: BNN, outputs: Tensor, y: Tensor, *, first: int = 0) -> Tensor:
    """log p(y_i | outputs_i) of each example in nats, [batch], in double precision, with its
    graph.

    Raises:
        ValueError: outputs that are not finite (`first` is the number of the first example); a
            likelihood with latent sites, or without a batch axis; targets that do not fit.
    """
    finite = torch.isfinite(outputs).reshape(len(outputs), -1).all(1)
    if not bool(finite.all()):
        wrong = int((~finite).nonzero()[0]) + first
        raise ValueError(f"Laplace: the network's outputs at the mode are not finite for example {wrong}")
    with alone(), poutine.block(), poutine.trace() as traced, prefixed(model.name):
        distribution = model.likelihood(outputs)
    if latent := traced.trace.stochastic_nodes:
        raise ValueError(
            f"Laplace: the likelihood has the latent site {latent[0]!r}; give it a fixed or learned value, or "
            "use MeanField"
        )
    check_target(distribution, y)
    log_prob: Tensor = distribution.log_prob(y)
    if log_prob.shape != outputs.shape[:1]:
        raise ValueError(
            f"Laplace: the likelihood's distribution has the batch shape {tuple(log_prob.shape)} for {len(outputs)} "
            "examples; its batch axis is that of the outputs, and everything else its event (`to_event`)"
        )
    return log_prob.double()


class BatchTargets:
    """The targets of one batch, which a structure hands its outputs to: what it gets back depends
    on both.

    log p(y_i | f_i) of each example is noted on the way. An example whose outputs are handed over
    again, in whatever chunks, is noted again in its own place, so that the batch's sum counts
    every example once.

    Args:
        model: has the likelihood.
        fisher: how roots of the Fisher information are had.
        y: the targets.
        count: examples in the batch.
    """

    def __init__(self, model: BNN, fisher: OutputFisher, y: Tensor, count: int) -> None:
        self._model, self._fisher, self._y, self._count = model, fisher, y, count
        self._noted: Tensor | None = None
        self._missing = torch.ones(count, dtype=torch.bool)

    def roots(self, outputs: Tensor, examples: slice = slice(None)) -> Tensor:
        """R_i with L_i = R_i R_i^T the Fisher information of y in the outputs,
        [batch, out, column].
        """
        target = self._meet(outputs, examples)
        return self._fisher.roots(self._model.likelihood, outputs, target)

    def fisher(self, outputs: Tensor, examples: slice = slice(None)) -> Tensor:
        """L_i, [batch, out, out]: where it is the likelihood's own, no root of it is taken."""
        if not isinstance(self._fisher, ExactFisher):
            R = self.roots(outputs, examples)
            return R @ R.mT
        self._meet(outputs, examples)
        return self._fisher.information(self._model.likelihood, outputs)

    def log_prob(self, outputs: Tensor, examples: slice = slice(None)) -> Tensor:
        """sum_i log p(y_i | outputs_i) in nats, with its graph."""
        return self._note(outputs, self._target(outputs, examples), examples).sum()

    def total(self, owner: str) -> Tensor:
        """sum_i log p(y_i | f_i) over the batch, each example once.

        Raises:
            TypeError: the outputs of some example were never handed over.
        """
        if self._noted is None or bool(self._missing.any()):
            raise TypeError(
                f"{owner}: `add` handed over the outputs of {self._count - int(self._missing.sum())} of "
                f"{self._count} examples; it has to ask `targets` for the roots, the Fisher information or the log "
                "density of every example of the batch"
            )
        return self._noted.sum()

    def _target(self, outputs: Tensor, examples: slice) -> Tensor:
        # All targets at once where there is one chunk: a `y` of the wrong length is then told by
        # its own shape.
        return self._y if len(outputs) == self._count else self._y[examples]

    def _meet(self, outputs: Tensor, examples: slice) -> Tensor:
        target = self._target(outputs, examples)
        self._note(outputs, target, examples)
        return target

    def _note(self, outputs: Tensor, target: Tensor, examples: slice) -> Tensor:
        log_probs = log_likelihoods(self._model, outputs, target, first=examples.start or 0)
        if self._noted is None:
            self._noted = log_probs.new_zeros(self._count)
        self._noted[examples] = log_probs.detach()
        self._missing[examples] = False
        return log_probs


@dataclass
class DataPass:
    """The training data: each call visits every example once, and sums the log likelihood.

    Attributes:
        seen: examples of the last pass.
        observations: numbers in their targets.
        log_likelihood: sum_i log p(y_i | f(x_i; w*)) of the last pass, in nats.
    """

    model: BNN
    loader: Iterable[tuple[Inputs, Tensor]]
    fisher: OutputFisher
    device: torch.device
    progress: bool
    before: int = 0  # examples of earlier fits
    seen: int = 0
    observations: int = 0
    log_likelihood: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.double))

    @torch.no_grad()
    def __call__(self, add: Add, label: str = "Laplace") -> None:
        """Add every batch.

        Raises:
            ValueError: inputs, targets or a likelihood that do not fit; more examples than the
                model's size; no batch.
            TypeError: an `add` that does not hand over the outputs of every example.
        """
        size = self.model.size
        self.seen = self.observations = 0
        self.log_likelihood = torch.zeros((), dtype=torch.double, device=self.device)
        for number, (x, y) in enumerate(progress_bar(self.loader, desc=label, unit="batch", show=self.progress)):
            try:
                check_inputs(x)
                # Targets that are no tensor are refused where outputs meet them.
                target = y.to(self.device) if isinstance(y, Tensor) else y
                count = batch_size(x)
                targets = BatchTargets(self.model, self.fisher, target, count)
                add(to_device(x, self.device), targets)
                self.log_likelihood += targets.total(label)
            except (TypeError, ValueError) as error:
                error.add_note(f"Laplace.fit: in batch {number} of the loader, counted from 0")
                raise
            self.seen += count
            self.observations += target.numel()
            if size is not None and self.before + self.seen > size:
                raise ValueError(
                    f"Laplace: the model's size is {size}, but the loader has more examples: "
                    f"{self.before + self.seen} so far"
                )
        if not self.seen:
            raise ValueError("Laplace: the loader is empty")
