"""One process, or several through Lightning Fabric: all that differs between them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Processes:
    """The processes that train together, each on its shard of the data; one where `fabric` is
    None.

    Args:
        fabric: a launched `lightning_fabric.Fabric` whose strategy keeps whole parameters in each
            process (a single device, DDP).
    """

    fabric: Any = None

    @property
    def count(self) -> int:
        """The number of processes."""
        return 1 if self.fabric is None else int(self.fabric.world_size)

    @property
    def rank(self) -> int:
        """Which one this is; 0 shows progress and writes checkpoints."""
        return 0 if self.fabric is None else int(self.fabric.global_rank)

    def setup(
        self, loss: nn.Module, optimizer: Optimizer, loader: Iterable[Any]
    ) -> tuple[nn.Module, Any, Iterable[Any]]:
        """Loss, optimiser and loader as this process calls them."""
        if self.fabric is None:
            return loss, optimizer, loader
        module, optimizer = self.fabric.setup(loss, optimizer)
        if isinstance(loader, DataLoader):
            return module, optimizer, self.fabric.setup_dataloaders(loader)
        if self.count > 1:
            raise TypeError(
                f"fit: several processes share the data of a torch DataLoader, not of a {type(loader).__name__}; wrap "
                f"the data in one"
            )
        return module, optimizer, loader

    def backward(self, value: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients of these parameters, averaged over processes; nothing else gets a `.grad`, the
        user's net least.
        """
        if self.fabric is None:
            value.backward(inputs=parameters)
        else:
            self.fabric.backward(value, inputs=parameters)

    def clip(self, module: nn.Module, optimizer: Any, parameters: Sequence[nn.Parameter], norm: float | None) -> float:
        """Scale the gradients down to `norm` where they are longer (None:
        never); returns what their norm was.
        """
        if self.scaled:
            total = self.fabric.clip_gradients(module, optimizer, max_norm=norm or math.inf, error_if_nonfinite=False)
            return float(total)
        total = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if norm is not None:
            clip_grads_with_norm_(parameters, norm, total)
        return float(total)

    @property
    def precision(self) -> Any:
        """What the precision keeps from step to step (16-mixed: the scale), or None."""
        return None if self.fabric is None else self.fabric.strategy.precision

    @property
    def scaled(self) -> bool:
        """Whether gradients are scaled against underflow (16-mixed), where an
        overflow only skips a step.
        """
        return getattr(self.precision, "scaler", None) is not None

    def mean(self, value: float) -> float:
        """The mean over processes, the same in each; not finite if one of them is not."""
        if self.count == 1:
            return value
        own = torch.tensor(value, device=self.fabric.device, dtype=torch.float64)
        return float(self.fabric.all_reduce(own, reduce_op="mean"))

    def broadcast(self, value: int) -> int:
        """Process 0's value."""
        return value if self.count == 1 else int(self.fabric.broadcast(value))

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values
