"""The normal distribution over a network's outputs that a linearised posterior makes."""

from collections.abc import Iterable

import torch
from pyro import distributions as dist
from torch import Tensor


def output_normal(chunks: Iterable[tuple[Tensor, Tensor]]) -> dist.MultivariateNormal:
    """N(f, A A^T), [batch] x [class], from (f [batch, class], A [batch, class, param]) in chunks of examples.

    A is the Jacobian times a root of the weights' covariance. Where it has fewer independent columns than there are
    classes the distribution is degenerate: it can be sampled, but has no density.
    """
    locs, roots = [], []
    for loc, half in chunks:
        locs.append(loc)
        roots.append(_triangular(half))
    return dist.MultivariateNormal(torch.cat(locs), scale_tril=torch.cat(roots), validate_args=False)


def _triangular(half: Tensor) -> Tensor:
    """The lower triangular L with L L^T = half half^T, [batch, class, class].

    By a QR decomposition of half^T: unlike the Cholesky factor of half half^T, it exists whatever the rank is, and
    keeps the digits of directions with little variance.
    """
    upper = torch.linalg.qr(half.mT, mode="r").R
    signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(upper.dtype)
    lower = (upper * signs.unsqueeze(-1)).mT  # [batch, class, min(class, param)]
    missing = half.shape[-2] - lower.shape[-1]
    return torch.nn.functional.pad(lower, (0, missing)) if missing else lower
