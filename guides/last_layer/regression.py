"""Bayesian linear regression on fixed features, in double precision."""

import math
from typing import NamedTuple

import torch
from pyro import distributions as dist
from torch import Tensor


class Spectrum(NamedTuple):
    """The prior and the data in one basis, for every output.

    `values` [out, feature] and `roots` [out, feature, feature] = S^1/2 Q, where S^1/2 Phi^T Phi
    S^1/2 / noise^2 is Q diag(values) Q^T and S the prior's covariance: under the prior f S the
    posterior's covariance is roots diag(values + 1 / f)^-1 roots^T.
    """

    values: Tensor
    roots: Tensor


def spectrum_of(gram: Tensor, scale: Tensor, noise: Tensor) -> Spectrum:
    """The spectrum of Phi^T Phi [feature, feature] under prior and noise.

    Their standard deviations are [out, feature] and [out].
    """
    ratio = scale / noise.unsqueeze(-1)
    values, vectors = torch.linalg.eigh(ratio.unsqueeze(-1) * gram * ratio.unsqueeze(-2))
    return Spectrum(values.clamp(min=0), scale.unsqueeze(-1) * vectors)


def mean(spectrum: Spectrum, products: Tensor, noise: Tensor) -> Tensor:
    """The posterior's means [out, feature], from Phi^T y_k in the rows of `products`."""
    projected = torch.einsum("kij,ki->kj", spectrum.roots, products) / noise.square().unsqueeze(-1)
    return torch.einsum("kij,kj->ki", spectrum.roots, projected / (spectrum.values + 1))


def covariance_root(spectrum: Spectrum, factor: float = 1.0) -> Tensor:
    """The lower triangular root of the covariance under `factor` times the
    prior's variance, for every output.
    """
    half = spectrum.roots / (spectrum.values + 1 / factor).sqrt().unsqueeze(-2)
    # half half^T = upper^T upper: no squared condition number
    upper = torch.linalg.qr(half.mT, mode="r").R
    return (upper * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)).mT.contiguous()


def log_evidence(spectrum: Spectrum, products: Tensor, squares: Tensor, count: Tensor, noise: Tensor) -> Tensor:
    """sum_k log N(y_k; 0, noise_k^2 I + Phi S_k Phi^T), in nats, from Phi^T y_k, |y_k|^2 and the
    number of examples.
    """
    variance = noise.square()
    projected = torch.einsum("kij,ki->kj", spectrum.roots, products) / variance.unsqueeze(-1)
    residual = squares / variance - (projected.square() / (spectrum.values + 1)).sum(-1)
    log_det = count * (2 * math.pi * variance).log() + spectrum.values.log1p().sum(-1)
    return -0.5 * (residual + log_det).sum()


def best_factor(
    spectrum: Spectrum, phi: Tensor, errors: Tensor, noise: Tensor, *, reach: float, points: int, condition: float
) -> float:
    """The multiple of the prior's variance, in [1, e^reach], with the largest log predictive
    density of held-out data.

    `errors` [batch, out] are the targets less their means, which stay; no factor is tried whose
    precision has a larger condition number than `condition`.
    """
    values = spectrum.values
    squares = torch.einsum("bi,kij->kbj", phi, spectrum.roots).square()
    best, most = 1.0, -math.inf
    for i in range(points):
        factor = math.exp(reach * i / max(points - 1, 1))
        ratio = (values.amax(-1) + 1 / factor) / (values.amin(-1) + 1 / factor)
        if i and bool((ratio > condition).any()):
            break
        variance = noise.square() + (squares / (values + 1 / factor).unsqueeze(1)).sum(-1).mT
        density = float(dist.Normal(0.0, variance.sqrt()).log_prob(errors).sum())
        if density > most:
            best, most = factor, density
    return best
