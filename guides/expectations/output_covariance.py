"""Variances [batch, out] or covariances [batch, out, out] of outputs, as a formula needs them."""

import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.functional.roots import triangular
from bayesnn.moments import JointMoments, Moments


def spread_of(outputs: Moments) -> Tensor:
    """The covariances of outputs where they are known, else the variances."""
    return outputs.covariance if isinstance(outputs, JointMoments) else outputs.variance


def covariance_root(covariance: Tensor) -> Tensor:
    """The lower triangular L with L L^T = covariance, [batch, out, out].

    Where the matrix is not positive definite, which propagated covariances are only nearly, L
    belongs to the nearest matrix that is semi-definite. Derivatives are those of Cholesky's
    algorithm.

    >>> covariance_root(torch.tensor([[4.0, 2.0], [2.0, 1.0]]))
    tensor([[2., 0.],
            [1., 0.]])
    """
    root, failed = torch.linalg.cholesky_ex(covariance)
    if not bool(failed.any()):
        return root
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(covariance.double())
        half = vectors * values.clamp(min=0).sqrt().unsqueeze(-2)
        nearest = triangular(half).to(covariance.dtype)
    return torch.where(failed[..., None, None] > 0, nearest, root)


def normal_of(outputs: Moments, *, covariance: bool) -> dist.TorchDistribution:
    """N(mean, V), [batch] x [out]: a `MultivariateNormal` where covariances are asked for, else
    independent outputs.
    """
    if not covariance:
        normal = dist.Normal(outputs.loc, outputs.variance.sqrt(), validate_args=False)
        return normal.to_event(outputs.loc.dim() - 1)
    if isinstance(outputs, JointMoments):
        root = covariance_root(outputs.covariance)
    else:
        root = torch.diag_embed(outputs.variance.sqrt())
    return dist.MultivariateNormal(outputs.loc, scale_tril=root, validate_args=False)
