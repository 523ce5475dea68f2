"""The Fisher information of one label in its logits, and its Cholesky factor in closed form."""

import torch
from torch import Tensor


def softmax_fisher(logits: Tensor) -> Tensor:
    """diag(p) - p p^T, [..., class, class], p = softmax(logits [..., class]).

    >>> softmax_fisher(torch.zeros(2))
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    """
    p = logits.softmax(-1)
    products = p.unsqueeze(-1) * p.unsqueeze(-2)
    products.diagonal(dim1=-2, dim2=-1).zero_()
    # p (1 - p) as a sum over the other classes: 1 - p has no digits where the network is certain.
    return torch.diag_embed(products.sum(-1)) - products


def softmax_fisher_root(logits: Tensor) -> Tensor:
    """L with L L^T = diag(p) - p p^T, [..., class, class - 1], lower triangular.

    With the tails q_j = sum_{i > j} p_i, which are 1 - sum_{i <= j} p_i and have digits where that
    has none,

        L_jj = sqrt(p_j q_j / q_{j-1}),    L_ij = -(p_i / q_j) L_jj for i > j,    0 for i < j.

    Every entry is an exponential of log probabilities, so that it has nearly all its digits for a
    certain softmax too.

    Reference: Tanabe and Sagae (1992), An exact Cholesky decomposition and the generalized inverse
    of the variance-covariance matrix of the multinomial distribution, with applications.

    >>> softmax_fisher_root(torch.zeros(3))
    tensor([[ 0.4714,  0.0000],
            [-0.2357,  0.4082],
            [-0.2357, -0.4082]])
    """
    log_p = logits.log_softmax(-1)
    tails = log_p.flip(-1).logcumsumexp(-1).flip(-1)  # log q_{j-1}
    # Classes of probability 0 have -inf, and the difference of two of those is no number.
    tails = tails.clamp(min=torch.finfo(log_p.dtype).min)
    after = tails[..., 1:]  # log q_j
    diagonal = (0.5 * (log_p[..., :-1] + after - tails[..., :-1])).exp()
    # p_i / q_j of i > j; above the diagonal, where it may be infinite, there are zeros.
    root = (log_p.unsqueeze(-1) - after.unsqueeze(-2)).exp_().mul_(-diagonal.unsqueeze(-2)).tril_(-1)
    root.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
    return root
