"""The diagonal of a Gauss-Newton matrix, layer by layer."""

from collections.abc import Callable

import torch
from torch import Tensor

from bayesnn.curvature.jacobian_rows import MEMORY, JacobianRows, Roots, entries, one_position, slices
from bayesnn.curvature.layer_rules import Matrix
from bayesnn.curvature.layers import Pass
from bayesnn.functional.call import Inputs


@torch.no_grad()
def ggn_diagonal(rows: JacobianRows, x: Inputs, roots: Roots) -> Tensor:
    """sum_i diag(J_i^T R_i R_i^T J_i) over a batch, [param], in double precision, in the order of
    the chosen entries.

    With R_i R_i^T = L_i it is the diagonal of the Gauss-Newton matrix, in nats per squared unit of
    the parameters. A layer with one position needs one product of squares; no example's
    derivatives of the size of the network are held.
    """
    total = torch.zeros(rows.count, dtype=torch.double, device=next(iter(rows.values.values())).device)
    done = rows.layers(x)
    if done is None:
        for _, _, part in rows.chunks(x, roots):
            total += part.square().sum((0, 1))
        return total
    outputs = done.outputs.detach()
    R = roots(outputs, slice(0, len(outputs))).reshape(*outputs.shape, -1)
    blocks = [(rows.places[name], _of_block(name, rows, done)) for name in rows.index if name in done.uses]
    for column in range(R.shape[-1]):
        derivatives = done.back(R[..., column], last=column == R.shape[-1] - 1)
        for place, block in blocks:
            total[place] += block(derivatives)
    return total


def _of_block(name: str, rows: JacobianRows, done: Pass) -> Callable[[dict[int, Tensor]], Tensor]:
    """{id(use): derivative in its output} -> the sum over examples of one
    block's squares, [entry].
    """
    uses, chosen, value = done.uses[name], rows.index[name], rows.values[name]
    if len(uses) == 1 and chosen is None and one_position(uses[0], name):
        (use,) = uses
        assert isinstance(use, Matrix)
        a = use.rows[:, 0, 0].square()
        return lambda derivatives: (use.cotangent(derivatives[id(use)])[:, 0, 0].square().mT @ a).flatten()
    if chosen is not None:
        takers = [(use, entries(use, use.roles[name], chosen)) for use in uses]
        return lambda derivatives: (
            sum((take(derivatives[id(u)]) for u, take in takers), value.new_zeros(())).square().sum(0)
        )

    def by_parts(derivatives: dict[int, Tensor]) -> Tensor:
        total = torch.zeros_like(value)
        for part in slices(len(done.outputs), max(1, MEMORY // (value.numel() * value.element_size()))):
            gradients = (use.gradients(use.roles[name], derivatives[id(use)], part) for use in uses)
            total += sum(gradients, value.new_zeros(())).square().sum(0)
        return total.flatten()

    return by_parts
