"""Problems for Bayesian last layers, and the slow obvious way to their evidence."""

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import learned, likelihoods
from bayesnn.models import NeuralLinear

PHI = torch.tensor([[1.0, 0.5], [1.0, -1.0], [1.0, 2.0]], dtype=torch.double)
Y = torch.tensor([[1.0], [-0.5], [2.2]], dtype=torch.double)
EVIDENCE = -4.3734628802
"""log N(Y; 0, 0.25 I + 2 PHI PHI^T)."""

LOC = torch.tensor([[1.0, 0.2], [-0.3, 0.5], [0.0, -1.0]], dtype=torch.double)
COVARIANCE = torch.tensor([[[0.1, 0], [0, 0.1]], [[0.3, 0.1], [0.1, 0.2]], [[0.05, 0], [0, 0.05]]], dtype=torch.double)
NOISE = torch.tensor([0.2, 0.1, 0.3], dtype=torch.double)
"""Variance of the logits beyond that of the weights."""
POINT = torch.tensor([[0.7, -1.2]], dtype=torch.double)


def given_features(width: int, outputs: int, likelihood: Any, **options: Any) -> NeuralLinear:
    """A neural linear model whose features are its inputs, in double precision."""
    return NeuralLinear(nn.Identity(), width, outputs, likelihood, bias=False, **options).double()


def golden(**options: Any) -> NeuralLinear:
    """Two weights, three examples, prior variance 2, noise variance 0.25: alpha = 8."""
    return given_features(2, 1, likelihoods.normal(0.5), **({"scale": 2**0.5} | options))


def body(inputs: int = 3, width: int = 4) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, width), nn.Tanh()).double()


def regression(examples: int = 12, *, relative: bool = False, **options: Any) -> tuple[NeuralLinear, Tensor, Tensor]:
    """Two outputs of different noise on learned features."""
    noise = likelihoods.normal(learned(torch.tensor([0.3, 0.7])))
    model = NeuralLinear(body(), 4, 2, noise, scale=learned(1.5), relative=relative, **options)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(examples, 3, dtype=torch.double, generator=generator)
    return model, x, torch.randn(examples, 2, dtype=torch.double, generator=generator)


def log_evidence(model: NeuralLinear, x: Tensor, y: Tensor) -> Tensor:
    """sum_k log N(y_k; 0, noise_k^2 I + Phi S_k Phi^T), with dense covariances
    of the examples; differentiable.
    """
    phi, prior, noise = model.phi(x), model.matrix_prior().base_dist, model.noise_scale()
    total = torch.zeros((), dtype=torch.double)
    for k in range(y.shape[1]):
        covariance = noise[k] ** 2 * torch.eye(len(y)).double() + phi @ torch.diag(prior.scale[k] ** 2) @ phi.mT
        total = total + dist.MultivariateNormal(torch.zeros(len(y)).double(), covariance).log_prob(y[:, k])
    return total


def exact_posterior(model: NeuralLinear, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Means [out, feature] and covariances [out, feature, feature], by inverting precisions."""
    with torch.no_grad():
        phi, prior, noise = model.phi(x), model.matrix_prior().base_dist, model.noise_scale()
        covariances = [
            torch.linalg.inv(phi.mT @ phi / noise[k] ** 2 + torch.diag(prior.scale[k] ** -2)) for k in range(y.shape[1])
        ]
        means = [cov @ phi.mT @ y[:, k] / noise[k] ** 2 for k, cov in enumerate(covariances)]
    return torch.stack(means), torch.stack(covariances)


def put(guide: Any, loc: Tensor, covariance: Tensor) -> Any:
    """A `LastLayer` guide at this distribution."""
    root = torch.linalg.cholesky(covariance)
    with torch.no_grad():
        guide.loc.copy_(loc)
        guide.log_scale.copy_(root.diagonal(dim1=-2, dim2=-1).log())
        guide.lower.copy_(root)
    return guide


def grid(mean: Tensor, variance: Tensor, nodes: int = 40) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite points [point, class] and weights [point] of N(mean,
    diag(variance)) over three logits.
    """
    import numpy as np

    t, w = (torch.tensor(part) for part in np.polynomial.hermite_e.hermegauss(nodes))
    points = torch.cartesian_prod(t, t, t) * variance.sqrt() + mean
    weights = torch.cartesian_prod(w, w, w).prod(-1)
    return points, weights / weights.sum()
