"""Variational Laplace where the answer is known: linear models, every minibatch, several sites, hierarchies."""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from statistical import assert_mean
from torch import Tensor, nn
from variational_laplace_problems import BEST, ELBO, FULL, INIT, MEAN, NOISE, VARIANCES, X, Y, Handwritten, linear
from variational_laplace_problems import classifier, linear_bnn, real

from bayesnn.fit import fit
from bayesnn.guides import EmpiricalFisher, ExactFisher, FisherProbes, MeanField, SampledLabels, VariationalLaplaceELBO
from bayesnn.guides import faster_variances

EXACT = VariationalLaplaceELBO(ExactFisher())


def value(loss: Tensor) -> float:
    return loss.item()


def test_exact_elbo_of_a_linear_model() -> None:
    model, x, y = linear_bnn()
    guide = MeanField(model, init=INIT)
    with torch.no_grad():
        guide.log_scale.copy_(0.5 * VARIANCES.log())
    assert value(EXACT(model, guide)(x, y)) == pytest.approx(-ELBO, abs=1e-8)
    assert value(EXACT(linear, Handwritten())()) == pytest.approx(-ELBO, abs=1e-8)
    draws = torch.stack([VariationalLaplaceELBO()(model, guide)(x, y) for _ in range(400)])
    assert_mean(draws, -ELBO)


def test_its_terms() -> None:
    log_likelihood = dist.Normal(X @ MEAN, NOISE).log_prob(Y).sum().item()
    assert log_likelihood == pytest.approx(-0.8423740579, abs=1e-8)
    fisher = real(12, 21)
    kl = 3.3895248201
    for weight in (0.1, 1.0, 3.0):
        expected = -log_likelihood + 0.5 * value((fisher * VARIANCES).sum()) + weight * kl
        loss = VariationalLaplaceELBO(ExactFisher(), kl_weight=weight)(linear, Handwritten())()
        assert value(loss) == pytest.approx(expected, abs=1e-8)


def test_a_full_covariance_at_its_optimum_is_the_evidence_at_the_mean() -> None:
    covariance = torch.linalg.inv(X.mT @ X / NOISE**2 + torch.eye(2, dtype=torch.double) / 2)
    assert value(EXACT(linear, Handwritten(covariance))()) == pytest.approx(-FULL, abs=1e-8)


@pytest.mark.parametrize("curvature", [ExactFisher(), EmpiricalFisher(each=True)], ids=["exact", "empirical"])
@pytest.mark.parametrize("covariance", [None, real(0.05, 0.01, 0.01, 0.02).reshape(2, 2)], ids=["diagonal", "full"])
def test_the_mean_over_all_minibatches_is_the_whole(curvature: Any, covariance: Tensor | None) -> None:
    loss = VariationalLaplaceELBO(curvature)(linear, Handwritten(covariance))
    whole = loss()
    for size in (1, 2, 3):
        parts = torch.stack([loss(torch.tensor(chosen)) for chosen in combinations(range(3), size)])
        torch.testing.assert_close(parts.mean(), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("curvature", [FisherProbes(), SampledLabels(3), EmpiricalFisher()], ids=str)
def test_noisy_curvatures_have_the_exact_mean_at_every_batch_size(curvature: Any) -> None:
    exact = EmpiricalFisher(each=True) if isinstance(curvature, EmpiricalFisher) else ExactFisher()
    for chosen in ([1], [0, 2], [0, 1, 2]):
        i = torch.tensor(chosen)
        expected = VariationalLaplaceELBO(exact)(linear, Handwritten())(i)
        loss = VariationalLaplaceELBO(curvature)(linear, Handwritten())
        assert_mean(torch.stack([loss(i) for _ in range(300)]), expected.detach())


def test_a_vanishing_variance_leaves_the_mode() -> None:
    model, x, y = linear_bnn()
    guides = [MeanField(model, init=INIT, scale=scale) for scale in (1e-3, 1e-5)]
    losses = [EXACT(model, guide)(x, y) for guide in guides]
    log_joint = dist.Normal(X @ MEAN, NOISE).log_prob(Y).sum() + dist.Normal(0, 2**0.5).log_prob(MEAN).sum()
    entropy = [dist.Normal(torch.zeros(2).double(), scale).entropy().sum() for scale in (1e-3, 1e-5)]
    for loss, h, rest in zip(losses, entropy, (1e-4, 1e-8), strict=True):
        torch.testing.assert_close(loss, -log_joint - h, rtol=0, atol=rest)


def test_training_ends_at_the_exact_posterior() -> None:
    """Minibatches and probes: the mean of the exact posterior, and its conditional variances."""
    model, x, y = linear_bnn()
    guide = MeanField(model, init=INIT)
    batches = [(x[list(i)], y[list(i)]) for i in combinations(range(3), 2)]
    adam, groups = partial(torch.optim.Adam, lr=2e-3), faster_variances(2e-3, multiplier=5)
    loss = VariationalLaplaceELBO(ExactFisher())(model, guide)
    fit(loss, batches, epochs=600, optimizer=adam, groups=groups, progress=False)
    fit(loss, [(x, y)], epochs=300, optimizer=adam, groups=groups, progress=False)
    torch.testing.assert_close(guide.loc.detach(), real(0.4408, 0.8816), rtol=0, atol=2e-3)
    torch.testing.assert_close(guide.log_scale.detach().exp() ** 2, real(0.08, 0.0465), rtol=1e-2, atol=0)


def test_svi_trains_it() -> None:
    model, x, y = linear_bnn()
    guide = MeanField(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), VariationalLaplaceELBO())
    losses = [svi.step(x, y) for _ in range(300)]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert svi.evaluate_loss(x, y) == pytest.approx(-BEST, abs=1.5)


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
    assert_mean(torch.stack([noisy(torch.tensor([1]), everything[1]) for _ in range(400)]), loss(torch.tensor([1]), everything[1]).detach())


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
@pytest.mark.usefixtures("parameter_mode")
def test_pyros_guides(kind: str) -> None:
    """The exact curvature is that of all examples, whatever the blocks: compared with the covariance of draws."""
    model, x, y = classifier()
    guide = AUTO[kind](model)
    guide(x, y)
    loss = EXACT(model, guide)
    found = loss(x, y)
    gradients = torch.autograd.grad(found, list(loss.parameters()), allow_unused=True)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    means, draws = _flat(guide, model, x, y, mean=True), torch.cat([_flat(guide, model, x, y) for _ in range(1000)])
    outputs = torch.stack([model.outputs(_blocks(model, draw), x) for draw in means + 1e-4 * (draws - means)])
    centre = model.outputs(_blocks(model, means[0]), x)
    p = centre.softmax(-1)
    moved = (outputs - centre) / 1e-4
    penalty = 0.5 * ((p * moved**2).sum(-1) - (p * moved).sum(-1) ** 2).sum(-1)
    draws_of_kl = torch.stack([_kl(guide, model, x, y) for _ in range(1000)])
    nll = torch.nn.functional.cross_entropy(centre, y, reduction="sum")
    assert_mean(penalty + draws_of_kl, (found - nll).detach())


def _flat(guide: Any, model: Any, x: Tensor, y: Tensor, *, mean: bool = False) -> Tensor:
    from bayesnn.guides.variational_laplace_means import at_means

    with torch.no_grad():
        values = poutine.trace(guide).get_trace(x, y).nodes
    if mean:
        _, blocks = at_means(guide, (x, y), {})
        held = {name: value for block in blocks for name, value in block.pieces.items()}
        return torch.cat([held[name].detach().flatten() for name in model.sites]).unsqueeze(0)
    return torch.cat([values[name]["value"].flatten() for name in model.sites]).unsqueeze(0)


def _blocks(model: Any, flat: Tensor) -> dict[str, Tensor]:
    parts = flat.split([shape.numel() for shape in model.sites.values()])
    return {name: part.reshape(shape) for (name, shape), part in zip(model.sites.items(), parts, strict=True)}


def _kl(guide: Any, model: Any, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        guided = poutine.trace(guide).get_trace(x, y)
        unseen = poutine.block(model, hide=["y"])
        modelled = poutine.trace(poutine.replay(unseen, trace=guided)).get_trace(x, y)
        return guided.log_prob_sum() - modelled.log_prob_sum()


def test_options_are_kept_in_the_loss() -> None:
    model, _, _ = linear_bnn()
    loss = VariationalLaplaceELBO(SampledLabels(2), kl_weight=0.1, curvature_grad=False)(model, MeanField(model))
    assert "kl_weight=0.1, curvature=SampledLabels(draws=2), curvature_grad=False" in repr(loss)
    assert loss.metadata["objective"] == "VariationalLaplaceELBO"
    assert loss.metadata["kl_weight"] == 0.1


def test_mean_field_is_pyros_trace_elbo_in_a_linear_model() -> None:
    losses = torch.tensor([Trace_ELBO(num_particles=10).loss(linear, Handwritten()) for _ in range(200)])
    assert_mean(losses, -ELBO)
