"""One optimiser step: loss, gradient, check, clip, update."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from bayesnn.fit.batches import call
from bayesnn.fit.checks import causes, explain, not_finite
from bayesnn.fit.history import RunState
from bayesnn.fit.processes import Processes


class Step:
    """`step(batch, state)` trains on one batch and records it; nothing is updated when a number is
    not finite.

    Args:
        module: the loss, as set up for the processes.
        parameters: what is trained, by name.
        moving: buffers that a call of the loss changes; put back when the step fails.
        optimizer, scheduler: the scheduler steps after each optimiser step.
        clip: the largest gradient norm.
        processes: who trains together.

    Attributes:
        torn: an update began and did not end, so that the parameters lie between two steps.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        moving: Sequence[Tensor],
        optimizer: Any,
        scheduler: LRScheduler | None,
        clip: float | None,
        processes: Processes,
    ) -> None:
        self.module = module
        self.parameters = parameters
        self.moving = moving
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.clip = clip
        self.processes = processes
        self.torn = False

    def __call__(self, batch: Any, state: RunState) -> None:
        """One step, counted in `state`.

        Raises:
            FloatingPointError: the loss or a gradient is not finite.
        """
        where = f"at step {state.steps + 1} (batch {state.batch + 1} of epoch {state.epoch + 1})"
        kept = [buffer.clone() for buffer in self.moving]
        try:
            value = self._gradient(batch, where)
        except BaseException:
            for buffer, old in zip(self.moving, kept, strict=True):
                buffer.copy_(old)
            raise
        self.torn = True
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        state.record(value)
        self.torn = False

    def _gradient(self, batch: Any, where: str) -> float:
        """Set the gradients; returns the loss, averaged over processes."""
        self.optimizer.zero_grad()
        processes = self.processes
        try:
            loss = call(self.module, batch)
        except Exception as error:
            # Pyro validates its distributions: NaN often raises before there is a loss
            if faults := causes(batch, self.parameters):
                raise explain(f"the loss cannot be computed {where}", faults) from error
            raise
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise TypeError(f"fit: the loss must return one number as a tensor, not {shape}; sum or average it")
        if not loss.requires_grad:
            raise ValueError("fit: the loss does not depend on any trainable parameter, so it has no gradient")
        members = list(self.parameters.values())
        processes.backward(loss, members)
        value = processes.mean(float(loss.detach()))
        if not math.isfinite(value):
            raise explain(f"the loss is {value} {where}", causes(batch, self.parameters), processes=processes.count)
        norm = processes.clip(self.module, self.optimizer, members, self.clip)
        if not math.isfinite(norm) and not processes.scaled:
            raise self._gradient_error(batch, where)
        return value

    def _gradient_error(self, batch: Any, where: str) -> FloatingPointError:
        gradients = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        wrong = [f"that of {name} {fault}" for name, grad in gradients.items() if (fault := not_finite(grad))]
        headline = f"the loss is finite but a gradient is not, {where}: {'; '.join(wrong) or 'their norm overflows'}"
        return explain(headline, causes(batch, self.parameters), processes=self.processes.count)
