"""The Laplace bridge between normal logits and a Dirichlet distribution of probabilities."""

import math

import torch
from torch import Tensor


def log_concentration(mean: Tensor, covariance: Tensor, precision: float, *, normalised: bool) -> Tensor:
    """log alpha of the Dirichlet whose Laplace approximation in the logits is N(mean, diag V),
    [batch, class].

    The formula is that of `predict.bridge`.

    Args:
        mean: of the logits, [batch, class].
        covariance: of the logits, [batch, class, class].
        precision: what the covariance was computed to, relative to its size.
        normalised: as in `predict.bridge`.

    >>> log_concentration(torch.zeros(1, 3), torch.eye(3)[None], 1e-7, normalised=False).exp()
    tensor([[1., 1., 1.]])
    """
    classes = mean.shape[-1]
    variance, row = covariance.diagonal(dim1=-2, dim2=-1), covariance.sum(-1)
    size, total = classes * variance.amax(-1, keepdim=True), row.sum(-1, keepdim=True)
    # Where the sum of the logits is certain, V1 = 0 up to rounding; the direction is the limit of
    # V + small I.
    direction = torch.where(total > classes * precision * size, row / total, 1 / classes)
    mean = mean - direction * mean.sum(-1, keepdim=True)
    variance = (variance - direction * row).clamp(min=precision * size + 1e-30)
    if normalised:
        c = variance.mean(-1, keepdim=True) / math.sqrt(classes / 2)
        mean, variance = mean / c.sqrt(), variance / c
    ratio = mean + (-mean).logsumexp(-1, keepdim=True) - 2 * math.log(classes)
    return torch.logaddexp(ratio, ratio.new_tensor(1 - 2 / classes).log()) - variance.log()
