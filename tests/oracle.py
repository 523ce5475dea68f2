"""The slow obvious way: dense Jacobians, Gauss-Newton matrices and Hessians over a whole batch at
once.

By ordinary autograd, one row at a time: nothing here vectorises, so nothing is shared with what is
tested.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import functional as autograd

Function = Callable[[Mapping[str, Tensor], Any], Tensor]
Fisher = Callable[[Tensor], Tensor]


def flat(values: Mapping[str, Tensor]) -> Tensor:
    """All values in one vector, [param]."""
    return torch.cat([value.reshape(-1) for value in values.values()])


def unflat(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `flat`."""
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts, strict=True)}


def jacobian(function: Function, values: Mapping[str, Tensor], x: Any) -> Tensor:
    """[batch, class, param], by reverse mode over all outputs of the batch together."""
    return autograd.jacobian(lambda vector: function(unflat(vector, values), x).flatten(1), flat(values))


def ggn(function: Function, values: Mapping[str, Tensor], x: Any, fisher: Fisher) -> Tensor:
    """sum_i J_i^T L_i J_i, [param, param]."""
    J = jacobian(function, values, x)
    with torch.no_grad():
        L = fisher(function(values, x).flatten(1))
    return torch.einsum("ncp,ncd,ndq->pq", J, L, J)


def hessian(
    function: Function, values: Mapping[str, Tensor], x: Any, log_likelihood: Callable[[Tensor], Tensor]
) -> Tensor:
    """Hessian of the negative log likelihood, [param, param]; `log_likelihood`:
    outputs -> sum_i log p(y_i).
    """
    return autograd.hessian(lambda vector: -log_likelihood(function(unflat(vector, values), x)), flat(values))


def fisher(log_prob: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """sum_j weights_j s_j s_j^T with scores s_j = d log p(y_j | f) / df, [out, out], for one
    example's outputs [out].

    With targets [point, ...] and weights [point] that enumerate or integrate p(y | f) it is the
    Fisher information.
    """
    repeated = outputs.expand(len(targets), -1).clone().requires_grad_()
    (scores,) = torch.autograd.grad(log_prob(repeated, targets).sum(), repeated)
    return torch.einsum("j,ja,jb->ab", weights, scores, scores)
