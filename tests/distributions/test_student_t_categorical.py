"""`StudentTCategorical` and `StudentTBernoulli`: closed forms, adaptive
quadrature, limits, derivatives.
"""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from scipy import integrate, special, stats
from statistical import assert_mean
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from bayesnn.distributions import (
    CauchyBernoulli,
    NormalBernoulli,
    StudentTBernoulli,
    StudentTCategorical,
)
from bayesnn.distributions.logistic.softmax import log_mean_softmax
from bayesnn.predict import PredictiveDistribution

FAMILIES = [1.0, 4.0, math.inf]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def grid(scales: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """f, delta and gamma: predictions of any size, effects that do and do not change sign."""
    return torch.cartesian_prod(  # type: ignore[return-value]
        double(0.0, 0.01, 0.4, -1.0, 3.0, -10.0, 30.0, 200.0), double(-0.3, 0.0, 0.2, 1.0, 2.0), double(*scales)
    ).T


def two_classes(scales: list[float]) -> tuple[StudentTCategorical, CauchyBernoulli]:
    f, delta, gamma = grid(scales)
    c = torch.stack([-f / 2, f / 2], -1)
    return StudentTCategorical(1.0, c, delta, gamma), CauchyBernoulli(delta * f, gamma * f.abs())


@pytest.mark.parametrize(
    ("scale", "log_error"), [(1e-9, 3e-4), (1e-6, 4e-5), (1e-3, 4e-7), (0.1, 3e-8), (2.0, 3e-8), (1e3, 3e-8)]
)
def test_two_classes_are_the_integrated_logistic(scale: float, log_error: float) -> None:
    """The closed form of the digamma function: absolute accuracy 1e-10, and
    improbable classes as stated.
    """
    found, exact = two_classes([scale])
    torch.testing.assert_close(found.probs[:, 1], exact.probs, rtol=0, atol=1e-10)
    for label in (0, 1):
        expected = exact.log_prob(torch.full_like(exact.probs, label))
        torch.testing.assert_close(found.logits[:, label], expected, rtol=0, atol=log_error)


def quadrature(df: float, c: np.ndarray, loc: float, scale: float) -> np.ndarray:
    """The definition: the mean over t in panels around the switch, by adaptive
    Gauss-Kronrod over a = atan t.
    """
    t = stats.norm if math.isinf(df) else stats.t(df)
    step = math.atan2(-loc, scale)
    widths = np.array([0.0, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5])
    ends = [-math.pi / 2, math.pi / 2]
    points = np.unique(np.clip(np.concatenate([step - widths, step + widths, ends]), *ends))

    def integrand(a: float, k: int) -> float:
        return special.softmax((loc + scale * math.tan(a)) * c)[k] * t.pdf(math.tan(a)) / math.cos(a) ** 2

    return np.array([
        sum(integrate.quad(integrand, *panel, args=(k,), epsabs=1e-13, limit=200)[0] for panel in pairwise(points))
        for k in range(len(c))
    ])  # fmt: skip


@pytest.mark.parametrize(("df", "scale"), [(1.0, 1e-3), (1.0, 5.0), (4.0, 0.3), (math.inf, 0.3)])
def test_probabilities_equal_adaptive_quadrature(df: float, scale: float) -> None:
    for loc, c in ((0.9, [2.0, -1.0, 0.5]), (-0.2, [30.0, 29.0, -3.0, 0.0])):
        found = StudentTCategorical(df, double(*c), double(loc).squeeze(), double(scale).squeeze()).probs
        np.testing.assert_allclose(found.numpy(), quadrature(df, np.array(c), loc, scale), rtol=0, atol=2e-9)


def test_a_finer_rule_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven classes, logits of 0.01 to 30, any scale: 2e-9, and 2e-4 in logarithms from
    scale = 1e-3 |loc| on.
    """
    c = torch.randn(300, 7).double() * double(0.01, 1.0, 30.0).repeat_interleave(100).unsqueeze(1)
    loc = 2 * torch.randn(300).double()
    scale = loc.abs() * double(1e-6, 1e-3, 0.3, 1.0, 30.0).repeat(60)
    found = log_mean_softmax(1.0, c, loc, scale)
    monkeypatch.setattr("bayesnn.distributions.logistic.nodes.STEP", 0.012)
    monkeypatch.setattr("bayesnn.distributions.logistic.nodes.DIGITS", 34.0)
    finer = log_mean_softmax(1.0, c, loc, scale)
    torch.testing.assert_close(found.exp(), finer.exp(), rtol=0, atol=2e-9)
    seen = scale >= 0.9e-3 * loc.abs()
    torch.testing.assert_close(found[seen], finer[seen], rtol=0, atol=2e-4)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(300).double(), rtol=0, atol=1e-12)


def test_limits() -> None:
    """No effect: softmax(loc c), of classes with probability exp(-800) too;
    gamma -> infinity: the signs alone.
    """
    c = double(3.0, 0.0, -5.0)
    for loc in (-0.7, 0.0, 1.0, 100.0):
        for scale in (0.0, 1e-12):
            found = StudentTCategorical(1.0, c, double(loc), double(scale)).logits[0]
            expected = (loc * c).log_softmax(-1)
            kept = expected > -20 if scale else expected < 1
            torch.testing.assert_close(found[kept], expected[kept], rtol=1e-9, atol=1e-6 if scale else 1e-12)
    wide = StudentTCategorical(1.0, c, double(1e8), double(2e8)).probs[0]
    right = 0.5 + math.atan(0.5) / math.pi
    torch.testing.assert_close(wide, double(right, 0.0, 1 - right), rtol=0, atol=1e-7)
    torch.testing.assert_close(StudentTCategorical(1.0, 0 * c, 1.0, 2.0).probs, torch.full((3,), 1 / 3).double())


def test_families_meet() -> None:
    """Two classes are `StudentTBernoulli`; df = 1 and infinity are the Cauchy and the normal
    effect's closed forms.
    """
    loc, scale = torch.cartesian_prod(double(0.0, 0.3, 1.0, -4.0, 20.0, 200.0), double(0.001, 0.03, 0.35, 2.0, 1e3)).T
    cauchy, normal = StudentTBernoulli(1.0, loc, scale), StudentTBernoulli(math.inf, loc, scale)
    torch.testing.assert_close(cauchy.probs, CauchyBernoulli(loc, scale).probs, rtol=0, atol=2e-10)
    torch.testing.assert_close(normal.probs, NormalBernoulli(loc, scale).probs, rtol=0, atol=2e-10)
    c = torch.stack([torch.zeros_like(loc), torch.ones_like(loc)], -1)
    two = StudentTCategorical(4.0, c, loc, scale)
    torch.testing.assert_close(two.probs[:, 1], StudentTBernoulli(4.0, loc, scale).probs)
    nearly = StudentTBernoulli(1e7, loc, scale).probs
    torch.testing.assert_close(nearly, normal.probs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("df", FAMILIES)
def test_derivatives(df: float) -> None:
    """First and second ones; and those of the Cauchy family are the closed form's."""
    c = double(1.0, -0.4, 2.0, 0.3, 0.0, -3.0).reshape(2, 3).requires_grad_()
    loc, scale = double(0.3, -1.0).requires_grad_(), double(0.5, 2.0).requires_grad_()
    assert gradcheck(lambda *inputs: log_mean_softmax(df, *inputs), [c, loc, scale])
    assert gradgradcheck(lambda *inputs: log_mean_softmax(df, *inputs), [c, loc, scale])


def test_gradients_equal_the_closed_form() -> None:
    """In delta and in log gamma, of the probabilities."""
    f, delta, gamma = (value.clone() for value in grid([1e-3, 0.1, 2.0]))
    slopes = []
    for closed in (True, False):
        d, g = delta.clone().requires_grad_(), gamma.clone().requires_grad_()
        if closed:
            log_p = CauchyBernoulli(d * f, g * f.abs()).log_prob(torch.ones_like(f))
        else:
            log_p = StudentTCategorical(1.0, torch.stack([-f / 2, f / 2], -1), d, g).logits[:, 1]
        in_delta, in_gamma = torch.autograd.grad(log_p.exp().sum(), [d, g])
        slopes.append((in_delta, gamma * in_gamma))
    for mine, exact in zip(*reversed(slopes), strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-6, atol=1e-7)


def test_draws_and_shapes() -> None:
    distribution = StudentTCategorical(1.0, torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]]), 0.9, torch.tensor(0.3))
    assert distribution.batch_shape == (2,)
    labels = distribution.sample((20_000,))
    for label in range(3):
        assert_mean((labels == label).double(), distribution.probs[:, label].double())
    larger = distribution.expand((4, 2))
    assert larger.log_prob(labels[:5].unsqueeze(1)).shape == (5, 4, 2)
    assert larger.enumerate_support().shape == (3, 4, 2)
    assert larger.logits.dtype == torch.float
    again = pickle.loads(pickle.dumps(larger))
    assert torch.equal(again.log_prob(labels[:1]), larger.log_prob(labels[:1]))
    mixture = PredictiveDistribution(larger)
    torch.testing.assert_close(mixture.probs, distribution.probs)
    binary = StudentTBernoulli(4.0, torch.tensor([0.3, 0.9]), 1.0).expand((3, 2))
    assert pickle.loads(pickle.dumps(binary)).log_prob(torch.ones(3, 2)).shape == (3, 2)


def test_many_rows_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(50, 4).double(), torch.randn(50).double(), torch.rand(50).double()
    whole = log_mean_softmax(4.0, *rows)
    monkeypatch.setattr("bayesnn.distributions.logistic.softmax.NUMBERS", 1)
    torch.testing.assert_close(log_mean_softmax(4.0, *rows), whole)
    torch.testing.assert_close(log_mean_softmax(4.0, rows[0].requires_grad_(), *rows[1:]).detach(), whole)


def test_refusals() -> None:
    c = torch.tensor([1.0, 0.0])
    with pytest.raises(ValueError, match="Expected parameter scale"):
        StudentTCategorical(1.0, c, 0.0, -1.0)
    with pytest.raises(ValueError, match="two classes or more"):
        StudentTCategorical(1.0, c[:1], 0.0, 1.0)
    with pytest.raises(ValueError, match="degrees of freedom are positive"):
        StudentTCategorical(0.0, c, 0.0, 1.0)
    with pytest.raises(ValueError, match="degrees of freedom are positive"):
        StudentTBernoulli(-1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="within the support"):
        StudentTCategorical(1.0, c, 0.0, 1.0).log_prob(torch.tensor(2))
    with pytest.raises(ValueError, match="Expected parameter"):
        dist.Categorical(logits=StudentTCategorical(1.0, c / 0, 0.0, 1.0, validate_args=False).logits)
