"""Moments under a random last layer whose rows are independent and normal."""

import math

import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.models import GenerativeClassifier
from bayesnn.sites import base_of

Rows = dist.Normal | dist.MultivariateNormal


def rows_of(q: dist.TorchDistribution) -> Rows | None:
    """The normal distributions of the rows, [row, feature] or
    [row] x [feature]; None for any other family.
    """
    base = base_of(q)
    return base if type(base) in (dist.Normal, dist.MultivariateNormal) else None


def output_moments(rows: Rows, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Mean phi^T m_k and variance phi^T S_k phi of every output, each [batch, out]; phi is
    [batch, feature].
    """
    if isinstance(rows, dist.MultivariateNormal):
        variance = torch.einsum("bi,kij->bkj", phi, rows.scale_tril).square().sum(-1)
    else:
        variance = phi.square() @ rows.scale.square().mT
    return phi @ rows.mean.mT, variance


def row_kl(rows: Rows, prior: dist.Normal) -> Tensor:
    """KL(q(W) || N(m, s^2)) = 1/2 sum_k [ tr(P S_k) + (m_k - m)^T P (m_k - m) - n - log |P S_k| ]
    in nats, P = s^-2.

    `prior` has independent entries, [row, feature].
    """
    if isinstance(rows, dist.MultivariateNormal):
        trace = (rows.scale_tril / prior.scale.unsqueeze(-1)).square().sum()
        half_log_det = rows.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum()
    else:
        trace = (rows.scale / prior.scale).square().sum()
        half_log_det = rows.scale.log().sum()
    squares = ((rows.mean - prior.loc) / prior.scale).square().sum()
    return 0.5 * (trace + squares - rows.mean.numel()) + prior.scale.log().sum() - half_log_det


def class_log_densities(model: GenerativeClassifier, rows: Rows, phi: Tensor) -> Tensor:
    """log rho_k + log N(phi; m_k, diag(noise^2) + S_k), [batch, class], in
    nats: the class means integrated out.
    """
    noise = model.noise_scale().square()
    difference = phi.unsqueeze(-2) - rows.mean  # [batch, class, feature]
    if isinstance(rows, dist.MultivariateNormal):
        root = torch.linalg.cholesky(torch.diag_embed(noise) + rows.covariance_matrix)
        standardised = torch.linalg.solve_triangular(root, difference.permute(1, 2, 0), upper=False)
        squares = standardised.square().sum(1).mT
        half_log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    else:
        variance = noise + rows.variance
        squares = (difference.square() / variance).sum(-1)
        half_log_det = 0.5 * variance.log().sum(-1)
    constant = phi.shape[-1] / 2 * math.log(2 * math.pi)
    return model.log_class_probs - 0.5 * squares - half_log_det - constant


def generative_bound(model: GenerativeClassifier, rows: Rows, phi: Tensor, y: Tensor) -> Tensor:
    """A lower bound of E_q[log p(y | x, mu)] for a `GenerativeClassifier`, [batch], in nats.

    log rho_y + log N(phi; m_y, V) - 1/2 tr(V^-1 S_y) - log sum_k rho_k N(phi; m_k, V + S_k) with
    V = diag(noise^2): the first terms are exact, the last is Jensen's inequality.
    """
    noise = model.noise_scale().square()
    exact = model.outputs_of_features(rows.mean, phi) - 0.5 * (rows.variance / noise).sum(-1)
    own = exact.gather(-1, y.long().unsqueeze(-1)).squeeze(-1)
    return own - class_log_densities(model, rows, phi).logsumexp(-1)
