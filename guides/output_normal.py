"""The normal distribution over a network's outputs that a linearised posterior makes."""

from collections.abc import Iterable

import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.functional.roots import triangular


def output_normal(chunks: Iterable[tuple[Tensor, Tensor]]) -> dist.MultivariateNormal:
    """N(f, A A^T), [batch] x [class], from (f [batch, class], A [batch, class, param]) in chunks of examples.

    A is the Jacobian times a root of the weights' covariance. Where it has fewer independent columns than there are
    classes the distribution is degenerate: it can be sampled, but has no density.
    """
    locs, roots = [], []
    for loc, half in chunks:
        locs.append(loc)
        roots.append(triangular(half))
    return dist.MultivariateNormal(torch.cat(locs), scale_tril=torch.cat(roots), validate_args=False)
