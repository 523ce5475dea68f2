"""Student-t variables as a mixture of normal ones: nodes for the precision that is integrated out."""

import torch
from torch import Tensor

POINTS = 200
"""Nodes of the trapezoidal rule."""
DIGITS = 30.0
"""-log of what is left out at either end."""


def log_precisions(df: Tensor, peak: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Nodes s = log G of G ~ Gamma(df/2, df/2), for T = Z / sqrt(G) ~ t(df), and their log weights, [*df, node].

    Args:
        df: degrees of freedom, double.
        peak: a log precision far below 0 around which the integrand has its mass, where y lies far out.
    """
    with torch.no_grad():
        c = 2 * DIGITS / df  # exp(s) - s - 1 reaches it at the ends
        low, high = -torch.sqrt(2 * c) - c, torch.where(c < 1, torch.sqrt(2 * c), torch.log1p(2 * c))
        if peak is not None:
            c = 2 * DIGITS / (df + 1)
            low = torch.minimum(low, peak - torch.sqrt(2 * c) - c)
        step = (high - low).unsqueeze(-1) / (POINTS - 1)
        s = low.unsqueeze(-1) + step * torch.arange(POINTS, dtype=df.dtype, device=df.device)
    shape = df.unsqueeze(-1) / 2
    return s, step.log() + shape * (shape.log() + s - s.exp()) - torch.lgamma(shape)
