"""Variances of the outputs of a network that is linearised in independent
random weights, layer by layer.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bayesnn.curvature.jacobian_rows import MEMORY, JacobianRows, identity, slices
from bayesnn.curvature.layer_rules import Lookup, Matrix
from bayesnn.curvature.layers import Pass
from bayesnn.functional.call import Inputs

_Variances = Callable[[dict[int, Tensor]], Tensor]
"""{id(use): derivative in its output} -> a block's share of one output's variance, [batch]."""


@torch.no_grad()
def linearised_variance(rows: JacobianRows, x: Inputs, variances: Mapping[str, Tensor]) -> Tensor:
    """diag(J_i diag(S) J_i^T), [batch, out]: the outputs' variances, to first order in the
    weights.

    One forward pass and one pass back to the layers' outputs for every output; no example's
    Jacobian is held. With g the derivative in a layer's output and a its input, at positions p
    that share the weight,

        sum_ij S_ij (sum_p g_pi a_pj)^2 = sum_pq sum_i g_pi g_qi (S (a_p * a_q))_i,

    of which the second form, which needs S once for all outputs, is taken where positions are few.

    Args:
        rows: the network, and the values at which it is differentiated; its whole parameters are
            chosen.
        x: inputs of one batch; several output axes are flattened to one.
        variances: {parameter: S, of its shape}, 0 where an entry is certain.

    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> rows = JacobianRows(net, {"weight": net.weight}, {"weight": None})
    >>> linearised_variance(rows, torch.tensor([[1.0, 2.0]]), {"weight": torch.tensor([[0.5, 0.25]])})
    tensor([[1.5000]])
    """
    if any(chosen is not None for chosen in rows.index.values()):
        raise ValueError("linearised_variance: rows of whole parameters are needed; give certain entries variance 0")
    done = rows.layers(x)
    if done is None:
        flat = torch.cat([variances[name].flatten() for name in rows.index])
        return torch.cat([jac.square() @ flat for _, _, jac in rows.chunks(x, identity)])
    outputs = done.outputs.detach()
    count = outputs[0].numel()
    blocks = [_of_block(name, variances[name], count, done) for name in rows.index if name in done.uses]
    columns = []
    for column in range(count):
        seed = torch.zeros_like(outputs)
        seed.view(len(outputs), -1)[:, column] = 1.0
        derivatives = done.back(seed, last=column == count - 1)
        columns.append(sum((block(derivatives) for block in blocks), outputs.new_zeros(len(outputs))))
    return torch.stack(columns, 1)


def _of_block(name: str, variance: Tensor, outputs: int, done: Pass) -> _Variances:
    uses = done.uses[name]
    use = uses[0]
    if len(uses) == 1 and isinstance(use, Matrix) and _few_positions(use, name, outputs):
        return _by_pairs(use, variance)

    def by_gradients(derivatives: dict[int, Tensor]) -> Tensor:
        parts = []
        for part in slices(len(done.outputs), max(1, MEMORY // (variance.numel() * variance.element_size()))):
            gradients = [one.gradients(one.roles[name], derivatives[id(one)], part) for one in uses]
            parts.append(sum(gradients[1:], gradients[0]).square().flatten(1) @ variance.flatten())
        return torch.cat(parts)

    return by_gradients


def _few_positions(use: Matrix, name: str, outputs: int) -> bool:
    """Whether pairs of positions are fewer than positions times outputs."""
    if isinstance(use, Lookup) or use.roles[name] != "weight" or use.groups > 1:
        return False
    return use.rows.shape[1] < 2 * outputs


def _by_pairs(use: Matrix, variance: Tensor) -> _Variances:
    """By pairs of positions, each once."""
    a, S = use.rows[:, :, 0], variance.flatten(1)
    pairs = []
    for p in range(a.shape[1]):
        weight = torch.full((a.shape[1] - p, 1), 2.0, dtype=a.dtype, device=a.device)
        weight[0] = 1.0
        pairs.append(((a[:, p : p + 1] * a[:, p:]) @ S.mT) * weight)

    def variances(derivatives: dict[int, Tensor]) -> Tensor:
        g = use.cotangent(derivatives[id(use)])[:, :, 0]
        products = (((pair * g[:, p:]).sum(1) * g[:, p]).sum(1) for p, pair in enumerate(pairs))
        return sum(products, g.new_zeros(len(g)))

    return variances
