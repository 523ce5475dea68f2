"""Variational Laplace where the answer is known: linear models, every
minibatch, several sites, hierarchies.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from statistical import assert_mean
from torch import Tensor, nn
from variational_laplace_problems import (
    ELBO,
    FULL,
    INIT,
    MEAN,
    NOISE,
    VARIANCES,
    Handwritten,
    X,
    Y,
    classifier,
    linear,
    linear_bnn,
    real,
)

from bayesnn import likelihoods
from bayesnn.fit import fit
from bayesnn.guides import (
    LastLayer,
    LastLayerELBO,
    LastLayerMeanField,
    MeanField,
    VariationalLaplaceELBO,
    faster_variances,
)
from bayesnn.guides.fisher import EmpiricalFisher, ExactFisher, FisherProbes, MonteCarloFisher
from bayesnn.guides.variational_laplace.means import at_means
from bayesnn.models import NeuralLinear

ZERO, ONE = torch.zeros((), dtype=torch.double), torch.ones((), dtype=torch.double)
EXACT = VariationalLaplaceELBO(ExactFisher())


def test_exact_elbo_of_a_linear_model() -> None:
    model, x, y = linear_bnn()
    guide = MeanField(model, init=INIT)
    with torch.no_grad():
        guide.log_scale.copy_(0.5 * VARIANCES.log())
    assert EXACT(model, guide)(x, y).item() == pytest.approx(-ELBO, abs=1e-8)
    assert EXACT(linear, Handwritten())().item() == pytest.approx(-ELBO, abs=1e-8)
    draws = torch.stack([VariationalLaplaceELBO()(model, guide)(x, y) for _ in range(200)])
    assert_mean(draws, -ELBO)


def test_its_terms() -> None:
    log_likelihood = dist.Normal(X @ MEAN, NOISE).log_prob(Y).sum().item()
    assert log_likelihood == pytest.approx(-0.8423740579, abs=1e-8)
    fisher = real(12, 21)
    kl = 3.3895248201
    for weight in (0.1, 1.0, 3.0):
        expected = -log_likelihood + 0.5 * float((fisher * VARIANCES).sum()) + weight * kl
        loss = VariationalLaplaceELBO(ExactFisher(), kl_weight=weight)(linear, Handwritten())()
        assert loss.item() == pytest.approx(expected, abs=1e-8)


def test_a_full_covariance_at_its_optimum_is_the_evidence_at_the_mean() -> None:
    covariance = torch.linalg.inv(X.mT @ X / NOISE**2 + torch.eye(2, dtype=torch.double) / 2)
    assert EXACT(linear, Handwritten(covariance))().item() == pytest.approx(-FULL, abs=1e-8)


@pytest.mark.parametrize("curvature", [ExactFisher(), EmpiricalFisher(each=True)], ids=["exact", "empirical"])
@pytest.mark.parametrize("covariance", [None, real(0.05, 0.01, 0.01, 0.02).reshape(2, 2)], ids=["diagonal", "full"])
def test_the_mean_over_all_minibatches_is_the_whole(curvature: Any, covariance: Tensor | None) -> None:
    loss = VariationalLaplaceELBO(curvature)(linear, Handwritten(covariance))
    whole = loss()
    for size in (1, 2, 3):
        parts = torch.stack([loss(torch.tensor(chosen)) for chosen in combinations(range(3), size)])
        torch.testing.assert_close(parts.mean(), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("curvature", [FisherProbes(), MonteCarloFisher(3), EmpiricalFisher()], ids=str)
def test_noisy_curvatures_have_the_exact_mean_at_every_batch_size(curvature: Any) -> None:
    exact = EmpiricalFisher(each=True) if isinstance(curvature, EmpiricalFisher) else ExactFisher()
    for chosen in ([1], [0, 2], [0, 1, 2]):
        i = torch.tensor(chosen)
        expected = VariationalLaplaceELBO(exact)(linear, Handwritten())(i)
        loss = VariationalLaplaceELBO(curvature)(linear, Handwritten())
        assert_mean(torch.stack([loss(i) for _ in range(150)]), expected.detach())


def test_a_vanishing_variance_leaves_the_mode() -> None:
    model, x, y = linear_bnn()
    guides = [MeanField(model, init=INIT, scale=scale) for scale in (1e-3, 1e-5)]
    losses = [EXACT(model, guide)(x, y) for guide in guides]
    log_joint = dist.Normal(X @ MEAN, NOISE).log_prob(Y).sum() + dist.Normal(ZERO, 2**0.5 * ONE).log_prob(MEAN).sum()
    entropy = [dist.Normal(torch.zeros(2).double(), scale).entropy().sum() for scale in (1e-3, 1e-5)]
    for loss, h, rest in zip(losses, entropy, (1e-4, 1e-8), strict=True):
        torch.testing.assert_close(loss, -log_joint - h, rtol=0, atol=rest)


def test_training_ends_at_the_exact_posterior() -> None:
    """Its mean, and its conditional variances."""
    model, x, y = linear_bnn()
    guide = MeanField(model, init=INIT, scale=0.2)
    adam, groups = partial(torch.optim.Adam, lr=2e-2), faster_variances(2e-2, multiplier=3)
    fit(EXACT(model, guide), [(x, y)], epochs=250, optimizer=adam, groups=groups, progress=False)
    torch.testing.assert_close(guide.loc.detach(), real(0.4408, 0.8816), rtol=0, atol=1e-3)
    torch.testing.assert_close(guide.log_scale.detach().exp() ** 2, real(0.08, 0.0465), rtol=1e-2, atol=0)


def test_svi_trains_it() -> None:
    model, x, y = linear_bnn()
    guide = MeanField(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), VariationalLaplaceELBO())
    losses = [svi.step(x, y) for _ in range(100)]
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
    assert svi.evaluate_loss(x, y) == pytest.approx(losses[-1], abs=2)


def two_sites(first: Tensor, second: Tensor) -> None:
    """Two data sets of different size and kind, each seen in part, with one shared weight."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
    with pyro.plate("first", 3, subsample=first) as i:
        pyro.sample("a", dist.Normal(X[i] @ w, NOISE), obs=Y[i])
    with pyro.plate("second", 2, subsample=second) as j, poutine.mask(mask=torch.tensor([True, False])[j]):
        pyro.sample("b", dist.Normal((X[1:] * 2)[j] @ w, 0.3), obs=Y[j])


def test_several_sites_with_scales_and_masks() -> None:
    everything = (torch.arange(3), torch.arange(2))
    loss = EXACT(two_sites, Handwritten())
    whole = loss(*everything)
    w = Handwritten()
    draws = w.loc + VARIANCES.sqrt() * torch.randn(100_000, 2, dtype=torch.double)
    log_joint = dist.Normal(draws @ X.mT, NOISE).log_prob(Y).sum(-1) + dist.Normal(0.0, 1.0).log_prob(draws).sum(-1)
    log_joint = log_joint + dist.Normal(draws @ X[1] * 2, 0.3).log_prob(Y[0])
    log_q = dist.Normal(w.loc, VARIANCES.sqrt()).log_prob(draws).sum(-1)
    assert_mean(log_q - log_joint, whole.detach())
    parts = [loss(i, torch.tensor([j])) for i in everything[0].split(1) for j in range(2)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=0, atol=1e-10)
    noisy = VariationalLaplaceELBO()(two_sites, Handwritten())
    assert_mean(
        torch.stack([noisy(torch.tensor([1]), everything[1]) for _ in range(200)]),
        loss(torch.tensor([1]), everything[1]).detach(),
    )


def test_a_masked_distribution_is_a_masked_site() -> None:
    def masked() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
        with pyro.plate("data", 3):
            pyro.sample("y", dist.Normal(X @ w, NOISE).mask(torch.tensor([True, False, True])), obs=Y)

    def shorter() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
        with pyro.plate("data", 2):
            pyro.sample("y", dist.Normal(X[::2] @ w, NOISE), obs=Y[::2])

    torch.testing.assert_close(EXACT(masked, Handwritten())(), EXACT(shorter, Handwritten())())


def test_one_distribution_for_several_values() -> None:
    def model() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(w[0], NOISE), obs=Y)

    def plated() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
        with pyro.plate("data", 3):
            pyro.sample("y", dist.Normal(w[0], NOISE), obs=Y)

    torch.testing.assert_close(EXACT(model, Handwritten())(), EXACT(plated, Handwritten())())


def hierarchy(x: Tensor) -> None:
    """A latent mean of latent means, and a latent in a plate."""
    centre = pyro.sample("centre", dist.Normal(real(0.0).squeeze(), 2.0))
    with pyro.plate("groups", 3):
        w = pyro.sample("w", dist.Normal(centre, 0.7))
        pyro.sample("x", dist.Normal(w, 0.4), obs=x)


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centre, self.w = nn.Parameter(real(0.3).squeeze()), nn.Parameter(real(0.1, 0.9, -0.4))

    def forward(self, x: Tensor) -> None:
        pyro.sample("centre", dist.Normal(self.centre, 0.5))
        with pyro.plate("groups", 3):
            pyro.sample("w", dist.Normal(self.w, real(0.2, 0.3, 0.4)))


def test_a_prior_that_depends_on_a_latent_site() -> None:
    """Normal given normal: exact, as the prior's own Fisher term is there."""
    x, guide = real(0.2, 1.0, -0.5), Product()
    centre = guide.centre + 0.5 * torch.randn(100_000, 1, dtype=torch.double)
    w = guide.w + real(0.2, 0.3, 0.4) * torch.randn(100_000, 3, dtype=torch.double)
    log_q = dist.Normal(guide.centre, 0.5).log_prob(centre).sum(-1)
    log_q = log_q + dist.Normal(guide.w, real(0.2, 0.3, 0.4)).log_prob(w).sum(-1)
    log_p = dist.Normal(0.0, 2.0).log_prob(centre).sum(-1)
    log_p = log_p + (dist.Normal(centre, 0.7).log_prob(w) + dist.Normal(w, 0.4).log_prob(x)).sum(-1)
    assert_mean(log_q - log_p, EXACT(hierarchy, guide)(x).detach())


def local(chosen: Tensor | None = None) -> None:
    """One latent value for each example."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
    with pyro.plate("data", 3, subsample=chosen) as i:
        z = pyro.sample("z", dist.Normal(X[i] @ w, 0.5))
        pyro.sample("y", dist.Normal(z, NOISE), obs=Y[i])


class Local(Handwritten):
    def forward(self, chosen: Tensor | None = None) -> None:
        super().forward()
        with pyro.plate("data", 3, subsample=chosen) as i:
            pyro.sample("z", dist.Normal(real(0.2, 0.3, 0.9)[i], real(0.2, 0.3, 0.4)[i]))


def test_latent_values_of_single_examples() -> None:
    guide = Local()
    whole = EXACT(local, guide)()
    w = guide.loc + VARIANCES.sqrt() * torch.randn(100_000, 2, dtype=torch.double)
    z = real(0.2, 0.3, 0.9) + real(0.2, 0.3, 0.4) * torch.randn(100_000, 3, dtype=torch.double)
    log_q = dist.Normal(guide.loc, VARIANCES.sqrt()).log_prob(w).sum(-1)
    log_q = log_q + dist.Normal(real(0.2, 0.3, 0.9), real(0.2, 0.3, 0.4)).log_prob(z).sum(-1)
    log_p = dist.Normal(ZERO, ONE).log_prob(w).sum(-1) + dist.Normal(w @ X.mT, 0.5).log_prob(z).sum(-1)
    log_p = log_p + dist.Normal(z, NOISE).log_prob(Y).sum(-1)
    assert_mean(log_q - log_p, whole.detach())
    for size in (1, 2):
        parts = torch.stack([EXACT(local, guide)(torch.tensor(chosen)) for chosen in combinations(range(3), size)])
        torch.testing.assert_close(parts.mean(), whole, rtol=0, atol=1e-10)


def parts_of(model: Any) -> Any:
    guide = AutoGuideList(model)
    guide.append(AutoMultivariateNormal(poutine.block(model, expose=["2.weight", "2.bias"]), init_scale=0.1))
    guide.append(AutoNormal(poutine.block(model, hide=["2.weight", "2.bias"]), init_scale=0.1))
    return guide


AUTO: dict[str, Callable[[Any], Any]] = {
    "normal": partial(AutoNormal, init_scale=0.1),
    "diagonal": partial(AutoDiagonalNormal, init_scale=0.1),
    "full": partial(AutoMultivariateNormal, init_scale=0.1),
    "low rank": partial(AutoLowRankMultivariateNormal, init_scale=0.1, rank=3),
    "full last layer": parts_of,
}


@pytest.mark.parametrize("kind", AUTO)
def test_pyros_guides(kind: str) -> None:
    """Whatever the blocks: the penalty is half the mean square of J (w - m) in
    the metric of the outputs.
    """
    model, x, y = classifier()
    guide = AUTO[kind](model)
    guide(x, y)
    loss = EXACT(model, guide)
    found = loss(x, y)
    gradients = torch.autograd.grad(found, list(loss.parameters()), allow_unused=True)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    _, blocks = at_means(guide, (x, y), {})
    mean = {name: value.detach() for block in blocks for name, value in block.pieces.items()}
    centre = model.outputs(mean, x).log_softmax(-1)
    draws = []
    for _ in range(150):
        drawn, kl = drawn_with_kl(guide, model, x, y)
        near = {name: mean[name] + 1e-4 * (drawn[name] - mean[name]) for name in mean}
        moved = (model.outputs(near, x) - model.outputs(mean, x)) / 1e-4
        squares = (centre.exp() * moved**2).sum(-1) - (centre.exp() * moved).sum(-1) ** 2
        draws.append(0.5 * squares.sum() + kl)
    nll = -centre.gather(1, y.unsqueeze(1)).sum()
    assert_mean(torch.stack(draws), (found - nll).detach())


@torch.no_grad()
def drawn_with_kl(guide: Any, model: Any, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The values of one draw, and log q - log p of it."""
    guided = poutine.trace(guide).get_trace(x, y)
    modelled = poutine.trace(poutine.replay(poutine.block(model, hide=["y"]), trace=guided)).get_trace(x, y)
    values = {name: guided.nodes[name]["value"] for name in model.sites}
    return values, guided.log_prob_sum() - modelled.log_prob_sum()


@pytest.mark.parametrize("kind", [LastLayer, LastLayerMeanField])
def test_a_last_layer_with_normal_noise_has_its_exact_elbo(kind: Any) -> None:
    """Rows with a covariance each, and a body that is learned."""
    body = nn.Sequential(nn.Linear(2, 3), nn.Tanh()).double()
    model = NeuralLinear(body, 3, 2, likelihoods.normal(0.5), size=9).double()
    guide = kind(model).double()
    x, y = torch.randn(3, 2, dtype=torch.double), torch.randn(3, 2, dtype=torch.double)
    found, expected = EXACT(model, guide)(x, y), LastLayerELBO()(model, guide)(x, y)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    learned = [*model.parameters(), *guide.parameters()]
    mine, theirs = (torch.autograd.grad(one, learned, materialize_grads=True) for one in (found, expected))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_options_are_kept_in_the_loss() -> None:
    model, _, _ = linear_bnn()
    loss = VariationalLaplaceELBO(MonteCarloFisher(2), kl_weight=0.1, curvature_grad=False)(model, MeanField(model))
    assert "kl_weight=0.1, curvature=MonteCarloFisher(draws=2), curvature_grad=False" in repr(loss)
    assert loss.metadata["objective"] == "VariationalLaplaceELBO"
    assert loss.metadata["kl_weight"] == 0.1


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_pyros_elbos_have_the_same_mean_in_a_linear_model(elbo: Any) -> None:
    losses = torch.tensor([elbo(num_particles=5).loss(linear, Handwritten()) for _ in range(100)])
    assert_mean(losses, -ELBO)
