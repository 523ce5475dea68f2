"""R_i^T J_i, the rows that Gauss-Newton matrices and predictive variances are made of, by passes
back to the layers.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bayesnn.curvature.batch_axis import settle
from bayesnn.curvature.fallback import NoRule, warn_slow
from bayesnn.curvature.jacobian import Jacobians
from bayesnn.curvature.layer_rules import Lookup, Matrix, Use
from bayesnn.curvature.layers import Pass, forward_pass
from bayesnn.functional.call import Inputs, batch_size, call


class Roots(Protocol):
    """(outputs [batch, ...], which examples of the batch they are) -> R [batch, out, column], the
    outputs flattened.
    """

    def __call__(self, outputs: Tensor, examples: slice) -> Tensor:
        """R."""
        ...


MEMORY = 64 * 2**20
"""Bytes that the rows of one chunk of examples may take."""

EXAMPLES = 256
"""Most examples in one chunk, as the graph of their pass is held too."""


class JacobianRows:
    """R_i^T J_i with J_i the derivative of f(x_i) in chosen entries of the parameters,
    [batch, column, param].

    One forward pass and one pass back to the layers' outputs for every column; the chosen entries
    are then products of a layer's input and the derivative in its output, so that time and memory
    grow with their number and not with the network. Where a layer has no rule (LSTM), or its batch
    axis is not found, Jacobians by `torch.func` stand in, with a `SlowFallback` warning. Both ways
    are checked against autograd at the first batch of every shape.

    Args:
        net: the network.
        values: {parameter: full tensor} of those with chosen entries.
        index: {parameter: flat indices of the chosen entries; None = all}.
    """

    def __init__(self, net: nn.Module, values: Mapping[str, Tensor], index: Mapping[str, Tensor | None]) -> None:
        self.net, self.values = net, dict(values)
        self.index = {
            name: chosen if chosen is None else chosen.to(values[name].device) for name, chosen in index.items()
        }
        self.places: dict[str, slice] = {}  # of every parameter's entries among all
        self.count = 0
        for name, chosen in self.index.items():
            start, self.count = self.count, self.count + (values[name].numel() if chosen is None else len(chosen))
            self.places[name] = slice(start, self.count)
        self.layerwise: bool | None = None  # not known before the first batch
        self._columns: int | None = None
        # of every layer's batch, by the pass' shapes
        self._axes: dict[object, list[tuple[int | None, bool]]] = {}
        self._jacobians = Jacobians(partial(call, net), net)

    def chunks(self, x: Inputs, roots: Roots) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(examples, outputs, R^T J) in chunks of at most `EXAMPLES`, whose rows take at most
        `MEMORY` bytes.

        `roots` is asked once for every example.
        """
        start, batch = 0, batch_size(x)
        while start < batch:
            numbers = self.count if self.layerwise is not False else sum(v.numel() for v in self.values.values())
            size = MEMORY // ((self._columns or 128) * numbers * next(iter(self.values.values())).element_size())
            examples = slice(start, min(batch, start + max(1, min(size, EXAMPLES))))
            outputs, rows = self.of(_pick(x, examples), partial(roots, examples=examples))
            yield examples, outputs, rows
            start, self._columns = examples.stop, rows.shape[1]

    def layers(self, x: Inputs) -> Pass | None:
        """The pass over a batch; None where derivatives by layers are not to be
        had, of which a warning tells.
        """
        if self.layerwise is False:
            return None
        try:
            return self.settled(x)
        except NoRule as refused:
            self.layerwise = False
            warn_slow(
                self.net,
                f"Jacobians of {type(self.net).__name__} by torch.func instead of layer by layer, as of {refused}. "
                "They are exact, but take the time and memory of all entries of these parameters, for every example "
                "and output; leave that layer out of the subset if this is too slow.",
            )
            return None

    def settled(self, x: Inputs) -> Pass:
        """The pass over a batch, every layer's batch axis known: see `batch_axis.settle`, for each
        new set of shapes.

        Raises:
            NoRule: derivatives by layers are not to be had.
        """
        done = forward_pass(self.net, self.values, x)
        for name, what in done.unknown.items():
            raise NoRule(name, f"it goes through {what!r}, which has no rule for its derivatives")
        uses = done.layers()
        shapes = (batch_size(x), tuple(use.place.shape for use in uses))
        if (axes := self._axes.get(shapes)) is not None:
            for use, (axis, inner) in zip(uses, axes, strict=True):
                use.place = replace(use.place, axis=axis, inner=inner)
        elif settle(done):
            self._axes[shapes] = [(use.place.axis, use.place.inner) for use in uses]
        self.layerwise = True
        return done

    @torch.no_grad()
    def of(self, x: Inputs, roots: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The outputs [batch, ...] and R^T J, [batch, column, param]."""
        if (done := self.layers(x)) is not None:
            outputs = done.outputs.detach()
            return outputs, self._by_layers(done, roots(outputs).reshape(*outputs.shape, -1))
        _, jac = self._jacobians(self.values, x)
        outputs = call(self.net, self.values, x)  # the Jacobian's are flat
        return outputs, roots(outputs).mT @ self._chosen(jac)

    def _by_layers(self, done: Pass, roots: Tensor) -> Tensor:
        columns = roots.shape[-1]
        rows = roots.new_empty(len(roots), columns, self.count)
        takers = {
            name: [(use, entries(use, use.roles[name], chosen)) for use in done.uses.get(name, [])]
            for name, chosen in self.index.items()
        }
        for column in range(columns):
            derivatives = done.back(roots[..., column], last=column == columns - 1)
            for name, place in self.places.items():
                parts = [take(derivatives[id(use)]) for use, take in takers[name]]
                rows[:, column, place] = sum(parts[1:], parts[0]) if parts else 0.0
        return rows

    def _chosen(self, jac: Tensor) -> Tensor:
        """The chosen columns of a Jacobian over the full tensors."""
        parts = jac.split([value.numel() for value in self.values.values()], -1)
        named = dict(zip(self.values, parts, strict=True))
        return torch.cat(
            [named[n] if chosen is None else named[n][..., chosen] for n, chosen in self.index.items()], -1
        )


def entries(use: Use, role: str, chosen: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A function: the derivative in a layer's output -> that in chosen entries of one parameter,
    [batch, entry].

    What depends on the layer's input alone is found once, for all columns.
    """
    if chosen is None:
        return lambda g: use.gradients(role, g).flatten(1)
    if role == "bias" or not isinstance(use, Matrix) or isinstance(use, Lookup):
        return lambda g: use.gradients(role, g).flatten(1).index_select(1, chosen)
    groups, width = use.rows.shape[2:]
    out = use.tensors["weight"].shape[0] // groups
    row, column = chosen // width, chosen % width
    column = column + width * (row // out)
    inputs = use.rows.flatten(2)  # [batch, position, group * in]
    batch, positions = inputs.shape[:2]
    if positions == 1:
        taken = inputs[:, 0].index_select(1, column)
        return lambda g: use.cotangent(g).flatten(1).index_select(1, row) * taken
    used, place = row.unique(return_inverse=True)
    held, at = column.unique(return_inverse=True)
    if len(used) * len(held) <= 8 * len(chosen):  # dense enough for one matrix product an example
        rectangle = inputs.index_select(2, held)
        flat = place * len(held) + at

        def product(g: Tensor) -> Tensor:
            dense = use.cotangent(g).flatten(2).index_select(2, used).mT @ rectangle
            return dense.flatten(1).index_select(1, flat)

        return product
    step = max(1, MEMORY // (4 * batch * positions * inputs.element_size()))
    kept = inputs.index_select(2, column) if len(column) <= step else None

    def pairs(g: Tensor) -> Tensor:
        derivative = use.cotangent(g).flatten(2)
        if kept is not None:
            return (derivative.index_select(2, row) * kept).sum(1)
        parts = zip(row.split(step), column.split(step), strict=True)
        return torch.cat([(derivative.index_select(2, r) * inputs.index_select(2, c)).sum(1) for r, c in parts], 1)

    return pairs


def identity(outputs: Tensor, examples: slice = slice(None)) -> Tensor:
    """R = 1: rows that are the Jacobian itself."""
    count = outputs[0].numel()
    return torch.eye(count, dtype=outputs.dtype, device=outputs.device).expand(len(outputs), -1, -1)


def one_position(use: Use, name: str) -> bool:
    """Whether an example's derivative in this weight is one outer product."""
    if not isinstance(use, Matrix) or isinstance(use, Lookup) or use.roles[name] != "weight":
        return False
    return use.groups == 1 and use.rows.shape[1] == 1


def slices(batch: int, size: int) -> list[slice]:
    """Consecutive parts of a batch."""
    return [slice(start, min(batch, start + size)) for start in range(0, batch, size)]


def _pick(x: Inputs, examples: slice) -> Inputs:
    picked: Inputs = pytree.tree_map_only(Tensor, lambda leaf: leaf[examples], x)
    return picked
