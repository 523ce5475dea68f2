"""E[log softmax(z)_y] of normal logits z, without draws: a lower bound and an expansion."""

import torch
from torch import Tensor

from bayesnn.likelihoods.expectations import variances


def jensen_bound(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """mean_y - log sum_k exp(mean_k + variance_k / 2) <= E[log softmax(z)_y], z ~ N(mean,
    diag(variance)), [batch].

    Args:
        mean: of the logits, [batch, class].
        variance: of the logits, [batch, class].
        y: labels, [batch].

    Reference: Harrison, Willes, Snoek (2024), Variational Bayesian last layers.

    >>> jensen_bound(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]))
    tensor([-0.6931])
    """
    return _of_label(mean, y) - (mean + 0.5 * variances(mean, variance)).logsumexp(-1)


def second_order(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """mean_y - log sum_k exp(mean_k) - 1/2 sum_k variance_k p_k (1 - p_k), p = softmax(mean),
    [batch].

    Taylor's expansion of E[log softmax(z)_y] (the delta method): closer than `jensen_bound` where
    variances are small, but no bound. Arguments as there; of covariances V [batch, class, class]
    the last term is -1/2 (p^T diag V - p^T V p).

    >>> second_order(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]))
    tensor([-0.6931])
    """
    p = mean.softmax(-1)
    spread = (variances(mean, variance) * p).sum(-1)
    if variance.dim() > mean.dim():
        spread = spread - torch.einsum("bi,bij,bj->b", p, variance, p)
    else:
        spread = spread - (variance * p.square()).sum(-1)
    return _of_label(mean, y) - mean.logsumexp(-1) - 0.5 * spread


def _of_label(values: Tensor, y: Tensor) -> Tensor:
    return values.gather(-1, y.long().unsqueeze(-1)).squeeze(-1)
