"""Correlated units, for the tests of covariances."""

from typing import Any

import torch
from torch import Tensor

from bayesnn.moments import JointMoments

DRAWS = 100_000


def double(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def pairs(m: Tensor, sd: Tensor, r: Tensor) -> JointMoments:
    """Two units each, [..., 2]."""
    between = r * sd.prod(-1)
    rows = [torch.stack([sd[..., 0] ** 2, between], -1), torch.stack([between, sd[..., 1] ** 2], -1)]
    return JointMoments(m, torch.stack(rows, -2))


def given(n: int = 4, examples: int = 3) -> JointMoments:
    """Correlated units of the size of activations."""
    root = torch.randn(examples, n, n, dtype=torch.double) / 2
    covariance = root @ root.mT + 0.05 * torch.eye(n, dtype=torch.double)
    return JointMoments(torch.randn(examples, n, dtype=torch.double), covariance)


def draws_of(x: JointMoments) -> Tensor:
    return torch.distributions.MultivariateNormal(x.loc, x.covariance).sample((DRAWS,))
