"""E_q[log p(y | f)] of labels and normal outputs, example by example: bounded or expanded."""

import torch
from torch import Tensor

from bayesnn.guides.last_layer.moments import Rows, class_log_densities
from bayesnn.likelihoods.expectations import variances
from bayesnn.models import GenerativeClassifier


def jensen_bound(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """mean_y - log sum_k exp(mean_k + variance_k / 2) <= E[log softmax(z)_y], z ~ N(mean, diag(variance)), [batch].

    Args:
        mean: of the logits, [batch, class].
        variance: of the logits, [batch, class].
        y: labels, [batch].

    Reference: Harrison, Willes, Snoek (2024), Variational Bayesian last layers.

    >>> import torch
    >>> jensen_bound(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]))
    tensor([-0.6931])
    """
    return _of_label(mean, y) - (mean + 0.5 * variances(mean, variance)).logsumexp(-1)


def second_order(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """mean_y - log sum_k exp(mean_k) - 1/2 sum_k variance_k p_k (1 - p_k), p = softmax(mean), [batch].

    Taylor's expansion of E[log softmax(z)_y] (the delta method): closer than `jensen_bound` where variances are small,
    but no bound. Arguments as there; of covariances V [batch, class, class] the last term is
    -1/2 (p^T diag V - p^T V p).

    >>> import torch
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


def generative_bound(model: GenerativeClassifier, rows: Rows, phi: Tensor, y: Tensor) -> Tensor:
    """A lower bound of E_q[log p(y | x, mu)] for a `GenerativeClassifier`, [batch], in nats.

    log rho_y + log N(phi; m_y, V) - 1/2 tr(V^-1 S_y) - log sum_k rho_k N(phi; m_k, V + S_k) with V = diag(noise^2): the
    first terms are exact, the last is Jensen's inequality.
    """
    noise = model.noise_scale().square()
    exact = model.outputs_of_features(rows.mean, phi) - 0.5 * (rows.variance / noise).sum(-1)
    return _of_label(exact, y) - class_log_densities(model, rows, phi).logsumexp(-1)


def _of_label(values: Tensor, y: Tensor) -> Tensor:
    return values.gather(-1, y.long().unsqueeze(-1)).squeeze(-1)
