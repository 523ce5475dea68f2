"""The estimators of the Fisher information: every random sign and label
enumerated, and gradients by differences.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence
from torch.func import functional_call
from variational_laplace_problems import Handwritten, NoCurvature, classifier, linear, real

from bayesnn.guides import MeanField, VariationalLaplaceELBO
from bayesnn.guides.fisher import EmpiricalFisher, ExactFisher, FisherProbes, MonteCarloFisher, signs
from bayesnn.guides.fisher.rules import RULES

LOGISTIC_X = torch.tensor([[1, 0.2], [1, -0.7], [1, 1.5]], dtype=torch.double)
W, S2 = real(0.4, -0.8), real(0.3, 0.3)


class Enumerated:
    """In the place of random signs: all vectors of signs, one at a time."""

    def __init__(self) -> None:
        self.given: Iterator[Tensor] = iter(())

    def __call__(self, like: Tensor) -> Tensor:
        return next(self.given).reshape(like.shape)

    def all(self, count: int) -> Iterator[None]:
        for vector in product([-1.0, 1.0], repeat=count):
            self.given = iter([torch.tensor(vector, dtype=torch.double)])
            yield


def penalty(curvature: Any, model: Any, guide: Any, *args: Tensor) -> Tensor:
    """The squared-gradient term alone: what `curvature` adds to a loss without one."""
    none = VariationalLaplaceELBO(NoCurvature())
    return VariationalLaplaceELBO(curvature)(model, guide)(*args) - none(model, guide)(*args)


def oracle(model: Any, guide: Any, x: Tensor) -> Tensor:
    """1/2 sum_j s_j^2 sum_i (J_i^T (diag p - p p^T) J_i)_jj of a classifier, by full Jacobians."""
    names, shapes = list(model.sites), [shape.numel() for shape in model.sites.values()]

    def outputs(flat: Tensor) -> Tensor:
        parts = zip(names, flat.split(shapes), strict=True)
        return functional_call(model.net, {n: v.reshape(model.sites[n]) for n, v in parts}, (x,))

    jac = torch.autograd.functional.jacobian(outputs, guide.loc, create_graph=True)
    p = outputs(guide.loc).softmax(-1)
    information = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    diagonal = torch.einsum("ikp,ikl,ilp->p", jac, information, jac)
    return 0.5 * (diagonal * (2 * guide.log_scale).exp()).sum()


def test_probes_have_the_exact_value_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 2^6 vectors of signs of two examples and three classes."""
    model, x, y = classifier()
    guide = MeanField(model, scale=0.5)
    exact = oracle(model, guide, x)
    expected = torch.autograd.grad(exact, [guide.loc, guide.log_scale])
    enumerated = Enumerated()
    monkeypatch.setattr(signs, "random_signs", enumerated)
    values = [penalty(FisherProbes(), model, guide, x, y) for _ in enumerated.all(6)]
    mean = torch.stack(values).mean()
    torch.testing.assert_close(mean, exact, rtol=0, atol=1e-14)
    for found, wanted in zip(torch.autograd.grad(mean, [guide.loc, guide.log_scale]), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)
    every = penalty(ExactFisher(), model, guide, x, y)
    torch.testing.assert_close(every, exact, rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.autograd.grad(every, guide.loc)[0], expected[0], rtol=0, atol=1e-14)


def test_sampled_labels_have_the_exact_value_and_another_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = classifier()
    guide = MeanField(model, scale=0.5)
    exact = oracle(model, guide, x)
    p = model.net(x).softmax(-1).detach()
    mean = torch.zeros((), dtype=torch.double)
    for labels in product(range(3), repeat=2):
        monkeypatch.setattr(dist.Categorical, "sample", lambda self, labels=labels: torch.tensor(labels))
        mean = mean + p[range(2), list(labels)].prod() * penalty(MonteCarloFisher(), model, guide, x, y)
    torch.testing.assert_close(mean, exact, rtol=0, atol=1e-12)
    found, expected = (torch.autograd.grad(value, guide.loc)[0] for value in (mean, exact))
    assert (found - expected).norm() > 0.1 * expected.norm()


def logistic(y: Tensor | None = None) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Bernoulli(logits=LOGISTIC_X @ w), obs=real(1, 0, 1) if y is None else y)


def logistic_guide() -> Handwritten:
    guide = Handwritten()
    with torch.no_grad():
        guide.loc.copy_(W)
        guide.scale_tril.copy_(S2.sqrt().diag())
    return guide


def test_logistic_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """All eight label vectors: the square of the sum is the sum of squares, and
    its gradient is exactly zero.
    """
    guide = logistic_guide()
    p = (LOGISTIC_X @ W).sigmoid()
    expected = 0.5 * (real(0.6605606367, 0.5892603518) * S2).sum()
    mean = torch.zeros((), dtype=torch.double)
    for labels in product([0.0, 1.0], repeat=3):
        y = real(*labels)
        monkeypatch.setattr(dist.Bernoulli, "sample", lambda self, y=y: y)
        mean = mean + (p**y * (1 - p) ** (1 - y)).prod() * penalty(MonteCarloFisher(), logistic, guide)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.autograd.grad(mean, guide.loc)[0], torch.zeros(2).double(), rtol=0, atol=1e-15)
    exact = penalty(ExactFisher(), logistic, guide)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.autograd.grad(exact, guide.loc)[0], real(0.0151, 0.0725), rtol=0, atol=1e-4)


def test_the_empirical_fisher_is_the_sum_of_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = logistic_guide()
    expected = 0.5 * (real(1.193, 1.335) * S2).sum()  # the square of the sum: 0.166, 2.654
    every = penalty(EmpiricalFisher(each=True), logistic, guide)
    torch.testing.assert_close(every, expected, rtol=0, atol=3e-4)
    enumerated = Enumerated()
    monkeypatch.setattr(signs, "random_signs", enumerated)
    mean = torch.stack([penalty(EmpiricalFisher(), logistic, guide) for _ in enumerated.all(3)]).mean()
    torch.testing.assert_close(mean, every, rtol=0, atol=1e-12)
    for found, wanted in zip(*(torch.autograd.grad(v, guide.loc) for v in (mean, every)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "curvature",
    [FisherProbes(2), MonteCarloFisher(2), ExactFisher(), EmpiricalFisher(), EmpiricalFisher(each=True)],
    ids=str,
)
def test_gradients_by_finite_differences(curvature: Any) -> None:
    """Of the whole loss at fixed noise, in the means and in the scales."""
    model, x, y = classifier()
    guide = MeanField(model, scale=0.5)
    loss = VariationalLaplaceELBO(curvature, kl_weight=0.7)(model, guide)
    start = {"loc": guide.loc.detach().clone(), "log_scale": guide.log_scale.detach().clone()}

    def of(loc: Tensor, log_scale: Tensor) -> Tensor:
        pyro.set_rng_seed(3)
        return functional_call(loss, {"guide.loc": loc, "guide.log_scale": log_scale}, (x, y))

    assert torch.autograd.gradcheck(of, tuple(v.requires_grad_() for v in start.values()), atol=1e-7)


def test_detached_curvature_moves_the_variances_alone() -> None:
    model, x, y = classifier()
    guide = MeanField(model, scale=0.5)
    losses = [VariationalLaplaceELBO(ExactFisher(), curvature_grad=on)(model, guide)(x, y) for on in (True, False)]
    torch.testing.assert_close(losses[0], losses[1])
    (loc, scale), (detached, same) = (torch.autograd.grad(one, [guide.loc, guide.log_scale]) for one in losses)
    torch.testing.assert_close(scale, same)
    none = VariationalLaplaceELBO(NoCurvature())(model, guide)(x, y)
    torch.testing.assert_close(detached, torch.autograd.grad(none, guide.loc)[0])
    assert (loc - detached).norm() > 1e-3


def test_draws_average() -> None:
    model, x, y = classifier()
    guide = MeanField(model, scale=0.5)
    for curvature in (FisherProbes, MonteCarloFisher, EmpiricalFisher):
        one, many = (
            torch.stack([penalty(curvature(draws), model, guide, x, y) for _ in range(60)]).var() for draws in (1, 9)
        )
        assert many < 0.6 * one


A, B = real(-0.7, 0.4), real(0.3, 1.2)
FAMILIES: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "Normal": (dist.Normal, (A, B)),
    "LogNormal": (dist.LogNormal, (A, B)),
    "Categorical": (lambda f: dist.Categorical(logits=f), (real(0.2, -1.0, 3.0),)),
    "Categorical probs": (lambda f: dist.Categorical(probs=f.softmax(-1)), (real(0.2, -1.0, 3.0),)),
    "OneHotCategorical": (lambda f: dist.OneHotCategorical(logits=f), (real(0.2, -1.0, 3.0),)),
    "Bernoulli": (lambda f: dist.Bernoulli(logits=f), (A,)),
    "Bernoulli probs": (dist.Bernoulli, (B / 2,)),
    "Binomial": (lambda f: dist.Binomial(7, logits=f), (A,)),
    "Poisson": (dist.Poisson, (B,)),
    "Exponential": (dist.Exponential, (B,)),
    "MultivariateNormal": (
        lambda f: dist.MultivariateNormal(f, real(2.0, 0.5, 0.5, 1.0).reshape(2, 2)),
        (A,),
    ),
}


def information(build: Callable[..., Any], start: tuple[Tensor, ...]) -> Tensor:
    """A A^T by the library's rule in the given parameters."""
    leaves = [value.clone().requires_grad_() for value in start]
    fn = build(*leaves)
    rows = []
    rule = next(RULES[kind] for kind in type(fn).__mro__ if kind in RULES)
    for parameter, root in rule(fn):
        if parameter.requires_grad and root is not None:
            for unit in torch.eye(parameter.numel(), dtype=torch.double):
                found = torch.autograd.grad(
                    parameter, leaves, root(unit.reshape(parameter.shape)), retain_graph=True, materialize_grads=True
                )
                rows.append(torch.cat([one.flatten() for one in found]))
    J = torch.stack(rows)
    return J.mT @ J


@pytest.mark.parametrize("kind", FAMILIES)
def test_fisher_information_is_the_curvature_of_the_kl(kind: str) -> None:
    build, start = FAMILIES[kind]
    found = information(build, start)
    fixed = build(*start)
    sizes = [value.numel() for value in start]

    def kl(flat: Tensor) -> Tensor:
        return kl_divergence(fixed, build(*flat.split(sizes))).sum()

    expected = torch.autograd.functional.hessian(kl, torch.cat(start))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


GRID = 0.3 + torch.linspace(-100, 100, 200_000, dtype=torch.double)  # without the kink itself
COUNTED: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], Tensor]] = {
    "GammaPoisson": (lambda rate: dist.GammaPoisson(real(2.5), rate), (real(0.6),), torch.arange(400).double()),
    "StudentT": (lambda m, s: dist.StudentT(real(4.0), m, s), (real(0.3), real(0.8)), GRID),
    "Laplace": (dist.Laplace, (real(0.3), real(0.8)), GRID),
    "Multinomial": (
        lambda f: dist.Multinomial(2, logits=f),
        (real(0.2, -1.0, 0.5),),
        real(2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 1, 0, 1, 0, 1, 0, 1, 1).reshape(6, 3),
    ),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_fisher_information_is_the_mean_square_of_the_score(kind: str) -> None:
    build, start, grid = COUNTED[kind]
    found = information(build, start)
    wide = tuple(v.clone().repeat(len(grid), *(1,) * (v.numel() > 1)).requires_grad_() for v in start)
    log_prob = build(*wide).log_prob(grid)
    weight = log_prob.detach().exp()
    weight = weight / weight.sum()
    score = torch.cat([one.reshape(len(grid), -1) for one in torch.autograd.grad(log_prob.sum(), wide)], -1)
    torch.testing.assert_close(found, score.mT @ (score * weight.unsqueeze(-1)), rtol=1e-4, atol=1e-6)


def test_heteroscedastic_noise_and_certain_classes() -> None:
    """Loc and scale both depend on the weight; a softmax that is certain has
    finite derivatives.
    """

    def model() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(w[0], w[1].exp()), obs=real(0.4).squeeze())
        pyro.sample("k", dist.Categorical(logits=2000 * w), obs=torch.tensor(1))

    guide = Handwritten()
    found = penalty(ExactFisher(), model, guide)
    mean, variance = guide.loc.detach(), guide.scale_tril.diagonal().detach() ** 2
    expected = 0.5 * (variance[0] * (-2 * mean[1]).exp() + 2 * variance[1])
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-9)
    found.backward()
    assert guide.loc.grad is not None
    assert guide.loc.grad.isfinite().all()


def test_linear_probes_are_linear() -> None:
    assert penalty(ExactFisher(), linear, Handwritten()).item() == pytest.approx(0.5 * (12 * 0.05 + 21 * 0.02))
