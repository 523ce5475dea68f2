"""The mean of softmax(beta c) over a random effect beta."""

import torch
from torch import Tensor

from bayesnn.distributions.logistic.nodes import effect_nodes

NUMBERS = 2**18
"""How many numbers are held at a time where no gradient is asked for: what a
processor keeps at hand.
"""
TINY = 1e-300
"""Where a probability is smaller, it is that of the effect's centre: the scale is 0."""


def log_mean_softmax(df: float, logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log E softmax(beta logits) over beta = loc + scale t, [*batch, class].

    Args:
        df: degrees of freedom of t: 1 is Cauchy, infinity normal.
        logits: [*batch, class], double.
        loc: [*batch], of the same batch shape.
        scale: [*batch], at least 0.
    """
    classes, shape = logits.shape[-1], logits.shape
    rows = (logits.reshape(-1, classes), loc.reshape(-1), scale.reshape(-1))
    if torch.is_grad_enabled() and any(row.requires_grad for row in rows):
        return _of_rows(df, *rows).reshape(shape)
    nodes = effect_nodes(df, rows[1][:0], rows[2][:0])[0].shape[-1]
    parts = zip(*(row.split(max(1, NUMBERS // (classes * nodes))) for row in rows), strict=True)
    return torch.cat([_of_rows(df, *part) for part in parts]).reshape(shape)


def _of_rows(df: float, logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    t, weights = effect_nodes(df, loc.detach(), scale.detach())
    beta = loc.unsqueeze(-1) + scale.unsqueeze(-1) * t
    softmax = (logits.unsqueeze(-1) * beta.unsqueeze(-2)).softmax(-2)
    mean = (softmax @ weights.unsqueeze(-1)).squeeze(-1)
    centre = (loc.unsqueeze(-1) * logits).log_softmax(-1)
    return torch.where(mean < TINY, centre, mean.clamp(min=TINY).log())
