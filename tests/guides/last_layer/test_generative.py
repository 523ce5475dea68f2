"""`GenerativeClassifier` under `LastLayer`: its bound and its predictive beside slow oracles."""

from typing import Any

import pytest
import torch
from last_layer_problems import body
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import learned
from bayesnn.guides import LastLayer, LastLayerELBO, LastLayerMeanField
from bayesnn.guides.last_layer.moments import generative_bound, rows_of
from bayesnn.models import GenerativeClassifier
from bayesnn.predict import predict

KINDS = (LastLayer, LastLayerMeanField)
FREQUENCIES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.double)


def problem(kind: Any, **options: Any) -> tuple[Any, Tensor, Tensor]:
    model = GenerativeClassifier(body(), 4, 3, noise=learned(torch.tensor([0.5, 0.8, 1.0, 1.3])), **options)
    guide = kind(model, scale=0.4)
    with torch.no_grad():
        guide.log_scale += 0.3 * torch.randn_like(guide.log_scale)
        if kind is LastLayer:
            guide.lower += 0.2 * torch.randn_like(guide.lower)
    return guide, torch.randn(6, 3).double(), torch.tensor([0, 1, 2, 2, 1, 0])


def covariances(guide: Any) -> Tensor:
    rows = rows_of(guide.matrix_distribution())
    if isinstance(rows, dist.MultivariateNormal):
        return rows.covariance_matrix.detach()
    assert rows is not None
    return torch.diag_embed(rows.variance).detach()


def log_normal(value: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """By determinant and inverse."""
    d = value - mean
    return -0.5 * (d @ torch.linalg.inv(covariance) @ d + torch.logdet(2 * torch.pi * covariance))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("class_probs", [None, FREQUENCIES])
def test_the_bound_is_the_formula_of_the_paper(kind: Any, class_probs: Any) -> None:
    guide, x, y = problem(kind, class_probs=class_probs, size=18)
    model, S, m = guide.model, covariances(guide), guide.loc.detach()
    rho = torch.full((3,), 1 / 3).double() if class_probs is None else class_probs
    with torch.no_grad():
        phi, V = model.phi(x), torch.diag(model.noise_scale() ** 2)
    expected, probs = torch.zeros(()).double(), []
    for i, label in enumerate(y):
        marginal = torch.stack([rho[k].log() + log_normal(phi[i], m[k], V + S[k]) for k in range(3)])
        own = rho[label].log() + log_normal(phi[i], m[label], V) - 0.5 * torch.trace(torch.linalg.inv(V) @ S[label])
        expected += own - marginal.logsumexp(0)
        probs.append(marginal.softmax(0))
    q = torch.distributions.MultivariateNormal(m, S)
    kl = torch.distributions.kl_divergence(q, torch.distributions.MultivariateNormal(0 * m, torch.eye(4).double()))
    assert LastLayerELBO().loss(model, guide, x, y) == pytest.approx((kl.sum() - 3 * expected).item(), rel=1e-6)
    torch.testing.assert_close(guide.target_distribution(x).probs, torch.stack(probs), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_it_lies_below_the_elbo(kind: Any) -> None:
    guide, x, y = problem(kind)
    outputs = predict(guide, x, 4000)
    log_p = outputs.log_softmax(-1).gather(-1, y.expand(4000, 6).unsqueeze(-1)).squeeze(-1).mean(0)
    rows = rows_of(guide.matrix_distribution())
    assert rows is not None
    with torch.no_grad():
        bound = generative_bound(guide.model, rows, guide.model.phi(x), y)
    assert (bound < log_p).all()
    assert (bound > log_p - 1.5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_without_uncertainty_the_bound_is_exact_and_so_is_bayes_rule(kind: Any) -> None:
    guide, x, _ = problem(kind)
    with torch.no_grad():
        guide.log_scale.fill_(-20.0)
        if kind is LastLayer:
            guide.lower.zero_()
    outputs = guide.model.outputs({"means": guide.loc}, x)
    torch.testing.assert_close(guide.target_distribution(x).probs, outputs.softmax(-1).detach())
    far = guide.target_distribution(100 * x)
    assert far.probs.sum(-1).allclose(torch.ones(6).double())


def test_outputs_are_log_densities() -> None:
    guide, x, _ = problem(LastLayer, class_probs=FREQUENCIES)
    model = guide.model
    with torch.no_grad():
        phi, noise = model.phi(x), model.noise_scale()
        density = dist.Normal(guide.loc, noise).to_event(1).log_prob(phi.unsqueeze(1))
        torch.testing.assert_close(model.outputs({"means": guide.loc}, x), density + FREQUENCIES.log())


def test_training_separates_three_clusters(untouched: Any) -> None:
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    y = torch.arange(90) % 3
    x = centres[y] + 0.4 * torch.randn(90, 2)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    model = GenerativeClassifier(net, 2, 3, scale=2.0, noise=learned(1.0), size=90)
    guide = LastLayer(model)
    loss = LastLayerELBO()(model, guide)
    before = loss(x, y).item()
    optimiser = torch.optim.Adam(loss.parameters(), 0.03)
    with untouched(net):
        for _ in range(150):
            optimiser.zero_grad()
            value = loss(x, y)
            value.backward()
            optimiser.step()
    assert value.item() < before / 3
    assert (guide.target_distribution(x).probs.argmax(-1) == y).float().mean() > 0.95


def test_what_is_refused() -> None:
    guide, x, _ = problem(LastLayer)
    with pytest.raises(TypeError, match="the outputs of a GenerativeClassifier are not normal"):
        guide.output_distribution(x)
    with pytest.raises(TypeError, match="GenerativeClassifier: the noise is a number, a tensor or learned"):
        GenerativeClassifier(body(), 4, 3, noise=dist.HalfCauchy(1.0))
    with pytest.raises(ValueError, match="GenerativeClassifier: class_probs are 3 positive numbers"):
        GenerativeClassifier(body(), 4, 3, class_probs=torch.tensor([0.5, 0.5, 0.0]))
    with pytest.raises(ValueError, match="GenerativeClassifier: noise must be positive"):
        GenerativeClassifier(body(), 4, 3, noise=0.0)
