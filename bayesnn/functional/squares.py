"""The diagonal of a Gauss-Newton matrix, layer by layer."""

import torch
from torch import Tensor

from bayesnn.functional.call import Inputs
from bayesnn.functional.layer_rules import Matrix
from bayesnn.functional.layers import Pass
from bayesnn.functional.rows import MEMORY, Roots, Rows, entries, one_position, slices


@torch.no_grad()
def squares(rows: Rows, x: Inputs, roots: Roots) -> Tensor:
    """sum_i diag(J_i^T R_i R_i^T J_i) over a batch, [param], in double precision, in the order of the chosen entries.

    With R_i R_i^T = L_i it is the diagonal of the Gauss-Newton matrix, in nats per squared unit of the parameters. A
    layer with one position needs one product of squares; no example's derivatives of the size of the network are held.
    """
    total = torch.zeros(rows.count, dtype=torch.double, device=next(iter(rows.values.values())).device)
    done = rows.layers(x)
    if done is None:
        for _, _, part in rows.chunks(x, roots):
            total += part.square().sum((0, 1))
        return total
    outputs = done.outputs.detach()
    R = roots(outputs, slice(0, len(outputs))).reshape(*outputs.shape, -1)
    for column in range(R.shape[-1]):
        found = done.back(R[..., column], last=column == R.shape[-1] - 1)
        start = 0
        for name, chosen in rows.index.items():
            stop = start + (rows.values[name].numel() if chosen is None else len(chosen))
            if name in done.uses:
                total[start:stop] += _of_block(name, rows, done, found)
            start = stop
    return total


def _of_block(name: str, rows: Rows, done: Pass, found: dict[int, Tensor]) -> Tensor:
    """Of one block's chosen entries, [entry]."""
    uses, chosen, nothing = done.uses[name], rows.index[name], torch.zeros(())
    if len(uses) == 1 and chosen is None and one_position(uses[0], name):
        (use,) = uses
        assert isinstance(use, Matrix)
        return (use.cotangent(found[id(use)])[:, 0, 0].square().mT @ use.rows[:, 0, 0].square()).flatten()
    if chosen is not None:
        summed = sum((entries(use, use.roles[name], chosen)(found[id(use)]) for use in uses), nothing)
        return summed.square().sum(0)
    value = rows.values[name]
    total = torch.zeros_like(value)
    for part in slices(len(done.outputs), max(1, MEMORY // (value.numel() * value.element_size()))):
        gradients = sum((use.gradients(use.roles[name], found[id(use)], part) for use in uses), nothing)
        total += gradients.square().sum(0)
    return total.flatten()
