"""The generalised Gauss-Newton matrix H = sum_i J_i^T L_i J_i, with L_i the Fisher information of y_i in f(x_i)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bayesnn.functional.call import Inputs
from bayesnn.functional.jacobian import Function, jacobian_chunks

Fisher = Callable[[Tensor], Tensor]
"""outputs [batch, class] -> E[d log p(y | f)/df d log p(y | f)/df^T], [batch, class, class]."""


def ggn(
    function: Function, values: Mapping[str, Tensor], x: Inputs, fisher: Fisher, *, numbers: int | None = None
) -> Tensor:
    """H = sum_i J_i^T L_i J_i, [param, param], over the examples of `x`.

    Its columns follow the order of `values`. The unit is nats per squared unit of the values. It equals the Fisher
    information of the parameters, and for a network that is linear in its values the Hessian of the negative log
    likelihood of an exponential family in its natural parameter.

    `numbers` bounds the memory where the values are a few entries of large tensors: see `jacobian_chunks`.

    Reference: Schraudolph (2002), Fast curvature matrix-vector products for second-order gradient descent.
    """
    total: Tensor | None = None
    for _, outputs, jac in jacobian_chunks(function, values, x, numbers=numbers):
        weighted = fisher(outputs) @ jac  # [batch, class, param]
        part = jac.flatten(0, 1).T @ weighted.flatten(0, 1)
        total = part if total is None else total + part
    assert total is not None
    return (total + total.T) / 2


def ggn_diagonal(function: Function, values: Mapping[str, Tensor], x: Inputs, fisher: Fisher) -> Tensor:
    """diag(H) = sum_i diag(J_i^T L_i J_i), [param], with Jacobians of a few examples in memory at a time."""
    total: Tensor | None = None
    for _, outputs, jac in jacobian_chunks(function, values, x):
        part = (jac * (fisher(outputs) @ jac)).sum((0, 1))
        total = part if total is None else total + part
    assert total is not None
    return total


def ggn_linear(features: Tensor, fisher: Tensor, *, bias: bool) -> Tensor:
    """H of a linear last layer in closed form: H[(c, a), (d, b)] = sum_i L_i[c, d] phi_i[a] phi_i[b].

    Args:
        features: [batch, feature].
        fisher: [batch, class, class].
        bias: whether the layer has a bias: its `class` columns come after the `class * feature` of the weight.

    Returns:
        [param, param] with param = class * feature (+ class).
    """
    classes = fisher.shape[-1]
    phi = torch.cat([features, features.new_ones(len(features), 1)], 1) if bias else features
    width = phi.shape[1]
    blocks = fisher.new_zeros(classes, classes, width, width)
    for c in range(classes):  # one matrix product a pair of classes: never [batch, width, width]
        for d in range(c, classes):
            block = (phi * fisher[:, c, d, None]).T @ phi
            blocks[c, d] = block
            blocks[d, c] = block
    matrix = blocks.permute(0, 2, 1, 3).reshape(classes * width, classes * width)
    if not bias:
        return matrix
    grid = torch.arange(classes * width, device=features.device).reshape(classes, width)
    order = torch.cat([grid[:, :-1].reshape(-1), grid[:, -1]])
    return matrix[order][:, order]
