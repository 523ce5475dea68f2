"""One pass over the training data, shared by all structures of the curvature."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from tqdm.auto import tqdm

from bayesnn.functional import Inputs, batch_size, to_device
from bayesnn.guides.laplace.fisher import Fisher, exact, exact_fisher
from bayesnn.handlers import prefixed
from bayesnn.models import BNN
from bayesnn.models.bnn import check_inputs
from bayesnn.models.observe import check_target
from bayesnn.sites import latent_nodes

Add = Callable[[Inputs, "FisherRoots"], None]
"""(x, roots): add a batch. It asks `roots` once for the outputs of every example."""

Visitor = Callable[[Inputs, Tensor], None]
"""(x, y): see a batch."""


def check_repeatable(loader: Iterable[Any], caller: str) -> None:
    """Refuse a loader that can be read only once, where there are several passes."""
    if isinstance(loader, Iterator):
        raise TypeError(
            f"{caller}: it passes over the data several times, but a {type(loader).__name__} can be read only once; "
            "give a DataLoader or a list of batches"
        )


@dataclass
class DataPass:
    """The training data: each call visits every example once.

    Attributes:
        seen: examples of the last pass.
        observations: numbers in their targets.
        log_likelihood: sum_i log p(y_i | f(x_i; w*)) of the last pass, in nats.
    """

    model: BNN
    loader: Iterable[tuple[Inputs, Tensor]]
    fisher: Fisher
    device: torch.device
    progress: bool
    before: int = 0  # examples of earlier fits
    seen: int = 0
    observations: int = 0
    log_likelihood: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.double))

    def __call__(self, add: Add, label: str = "Laplace") -> None:
        """Add every batch."""
        self.visit(lambda x, y: add(x, self._roots(y, batch_size(x))), label)

    @torch.no_grad()
    def visit(self, visitor: Visitor, label: str = "Laplace") -> None:
        """Every batch with its targets; the visitor asks `log_prob` once for the outputs of every example."""
        size = self.model.size
        self.seen = self.observations = 0
        self.log_likelihood = torch.zeros((), dtype=torch.double, device=self.device)
        for number, (x, y) in enumerate(tqdm(self.loader, desc=label, unit="batch", disable=not self.progress)):
            try:
                check_inputs(x)
                # Targets that are no tensor are refused where outputs meet them.
                target = y.to(self.device) if isinstance(y, Tensor) else y
                count = batch_size(x)
                visitor(to_device(x, self.device), target)
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

    def _roots(self, y: Tensor, count: int) -> "FisherRoots":
        return FisherRoots(self, y, count)

    def log_prob(self, outputs: Tensor, y: Tensor, *, first: int = 0) -> Tensor:
        """sum_i log p(y_i | outputs_i), with its graph; added to `log_likelihood`."""
        finite = torch.isfinite(outputs).reshape(len(outputs), -1).all(1)
        if not bool(finite.all()):
            wrong = int((~finite).nonzero()[0]) + first
            raise ValueError(f"Laplace: the network's outputs at the mode are not finite for example {wrong}")
        with poutine.block(), poutine.trace() as traced, prefixed(self.model.name):
            distribution = self.model.likelihood(outputs)
        if latent := list(latent_nodes(traced.trace.nodes)):
            raise ValueError(
                f"Laplace: the likelihood has the latent site {latent[0]!r}; give it a fixed or learned value, or "
                "use MeanField"
            )
        check_target(distribution, y)
        found = distribution.log_prob(y).double().sum()
        self.log_likelihood = self.log_likelihood.to(found.device) + found.detach()
        return found


class FisherRoots:
    """What a structure calls with the outputs of some examples: their log likelihood is added on the way."""

    def __init__(self, sweep: DataPass, y: Tensor, count: int) -> None:
        self.sweep, self.y, self.count = sweep, y, count

    def __call__(self, outputs: Tensor, examples: slice) -> Tensor:
        """R_i, [batch, out, column]."""
        target = self._target(outputs, examples)
        return self.sweep.fisher(self.sweep.model.likelihood, outputs, target)

    def fisher(self, outputs: Tensor, examples: slice) -> Tensor:
        """R_i R_i^T, [batch, out, out]: where it is the likelihood's own, no root of it is taken."""
        if self.sweep.fisher is not exact:
            R = self(outputs, examples)
            return R @ R.mT
        self._target(outputs, examples)
        return exact_fisher(self.sweep.model.likelihood, outputs)

    def _target(self, outputs: Tensor, examples: slice) -> Tensor:
        # All targets at once where there is one chunk: a `y` of the wrong length is then told by its own shape.
        target = self.y if len(outputs) == self.count else self.y[examples]
        self.sweep.log_prob(outputs, target, first=examples.start or 0)
        return target
