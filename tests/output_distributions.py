"""Normal distributions over outputs to test with."""

import torch
from pyro import distributions as dist
from torch import Tensor


def normal(mean: Tensor, covariance: Tensor) -> dist.MultivariateNormal:
    """Of any rank, as a guide makes it."""
    values, vectors = torch.linalg.eigh(covariance)
    upper = torch.linalg.qr((vectors * values.clamp(min=0).sqrt().unsqueeze(-2)).mT, mode="r").R
    return dist.MultivariateNormal(mean, scale_tril=upper.mT, validate_args=False)


def random_outputs(batch: int, classes: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    mean = 2 * torch.randn(batch, classes, dtype=torch.double, generator=generator)
    half = torch.randn(batch, classes, classes, dtype=torch.double, generator=generator)
    return mean, scale * (half @ half.mT)
