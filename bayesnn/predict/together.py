"""The number of draws that pass a network together: the one rule for `vmap` over draws."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from bayesnn.functional import Inputs, batch_size, worth_vectorising
from bayesnn.models import Model

LIMIT = 256 * 2**20
"""Bytes that one vectorised group of draws may take."""

SHARE = 0.25
"""Of a network's activations: where draws change no more of them, `vmap` wins
by computing the others once.
"""


def draws_together(model: Model, values: Mapping[str, Tensor], x: Inputs, *, vectorised: bool | None = None) -> int:
    """The number of draws for one `vmap` call within `LIMIT` bytes; 0 if a loop is better.

    A loop is better on a CPU unless few inputs meet few values (`functional.worth_vectorising`) or
    the draws leave most of the network as it is: one whose last layer alone is random then runs
    once for all of them, 30 times faster.

    Args:
        model: whose `outputs` the draws go through.
        values: one draw.
        x: the inputs that pass together.
        vectorised: True where the user wants `vmap` in any case.
    """
    examples, device = batch_size(x), next(iter(values.values())).device
    cost = _cost(model, values, x)
    if not vectorised:
        numbers = cost.values // next(iter(values.values())).element_size()
        few = cost.changed <= SHARE * (cost.changed + cost.kept)
        if not few and not worth_vectorising(numbers, examples, device):
            return 0
    group = int(max(1, LIMIT // max(1, cost.values + cost.changed * examples)))
    return group if vectorised or group > 1 else 0


class Cost(NamedTuple):
    """Bytes of a network's results: `values`, the draw itself and what is made of it alone; for
    one example `changed`, the activations that depend on the draw, and `kept`, those that do not.
    """

    values: int
    changed: int
    kept: int


def _cost(model: Model, values: Mapping[str, Tensor], x: Inputs) -> Cost:
    """The cost by a pass of one example and one of two: they differ by the activations."""
    passes = []
    for copies in (1, 2):
        part = pytree.tree_map_only(Tensor, lambda leaf, n=copies: torch.cat([leaf[:1]] * n), x)
        with torch.enable_grad(), _Dependent() as seen:
            model.outputs({name: value.detach().requires_grad_().clone() for name, value in values.items()}, part)
        passes.append(seen)
    one, two = passes
    changed = two.dependent - one.dependent
    return Cost(one.dependent - changed, changed, two.independent - one.independent)


class _Dependent(TorchFunctionMode):
    """Sums the bytes of all results that depend on what requires gradients, and of all others."""

    def __init__(self) -> None:
        super().__init__()
        self.dependent = self.independent = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                size = leaf.numel() * leaf.element_size()
                if leaf.requires_grad and not leaf.is_leaf:
                    self.dependent += size
                else:
                    self.independent += size
        return result
