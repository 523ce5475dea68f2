"""`CauchyBernoulli` against adaptive quadrature, the digamma function of mpmath
and its limits; its gradients.
"""

import math
import pickle
from collections.abc import Callable
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from pyro import distributions as dist
from scipy import integrate, special
from statistical import assert_mean
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from bayesnn.distributions import CauchyBernoulli
from bayesnn.predict import PredictiveDistribution

GAMMAS = [0.0, 1e-9, 1e-3, 0.01, 0.1, 0.5, 2.0, 10.0]
PREDICTIONS = [0.0, 0.01, 0.4, -1.0, 3.0, -10.0, 30.0]
DELTAS = [-0.3, 0.0, 0.2, 1.0, 2.0]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def grid() -> tuple[Tensor, Tensor]:
    """loc = delta f and scale = gamma |f|."""
    f, delta, gamma = torch.cartesian_prod(double(*PREDICTIONS), double(*DELTAS), double(*GAMMAS)).T
    return delta * f, gamma * f.abs()


def variables(*columns: list[float]) -> list[Tensor]:
    return [torch.tensor(column, dtype=torch.double, requires_grad=True) for column in columns]


@pytest.mark.parametrize(
    ("f", "delta", "gamma", "expected"),
    [
        (0.7, 1.0, 0.5, 0.6418967967),
        (-2.0, 0.9, 0.1, 0.1687845640),
        (3.0, -0.4, 1.5, 0.4254975722),
        (1.0, 0.0, 1.0, 0.5),
        (100.0, 1.0, 1.0, 0.7499738201),
    ],
)
def test_golden_probabilities(f: float, delta: float, gamma: float, expected: float) -> None:
    found = CauchyBernoulli(double(delta * f), double(gamma * abs(f))).probs
    assert found.item() == pytest.approx(expected, abs=6e-11)


@pytest.mark.parametrize("gamma", [1e-3, 0.1, 2.0, 10.0])
@pytest.mark.parametrize("f", [0.01, 1.0, -10.0, 200.0])
@pytest.mark.parametrize("delta", [-0.3, 1.0])
def test_probability_equals_adaptive_quadrature(f: float, delta: float, gamma: float) -> None:
    """The definition, with beta = delta + gamma tan(a): the mean over a in (-pi/2, pi/2) in panels
    around the step.
    """
    step = math.atan(-delta / gamma)
    widths = np.array([0.0, 1e-4, 1e-3, 0.01, 0.1, 0.5])
    points = np.unique(np.clip(np.concatenate([step - widths, step + widths]), -math.pi / 2, math.pi / 2))
    edges = [-math.pi / 2, *points.tolist(), math.pi / 2]

    def integrand(a: float) -> float:
        return special.expit((delta + gamma * math.tan(a)) * f)

    panels = [(low, high) for low, high in pairwise(edges) if high > low]
    total = sum(integrate.quad(integrand, *panel, epsabs=1e-13, limit=200)[0] for panel in panels)
    found = CauchyBernoulli(double(delta * f), double(gamma * abs(f))).probs.item()
    assert found == pytest.approx(total / math.pi, abs=1e-10)


def test_both_log_probabilities_and_gradients_equal_mpmaths() -> None:
    """To relative accuracy, the probability exp(-60) of the less likely outcome too."""
    loc, scale = grid()
    found = {y: CauchyBernoulli(loc, scale).log_prob(double(y)) for y in (0.0, 1.0)}
    loc_, scale_ = loc.clone().requires_grad_(), scale.clone().requires_grad_()
    slopes = torch.autograd.grad(CauchyBernoulli(loc_, scale_).log_prob(double(1.0)).sum(), [loc_, scale_])
    with mpmath.workdps(60):
        for i, (m, g) in enumerate(zip(loc.tolist(), scale.tolist(), strict=True)):
            z = mpmath.mpf(0.5) + mpmath.mpc(g, m) / (2 * mpmath.pi)
            p = mpmath.mpf(0.5) + mpmath.psi(0, z).imag / mpmath.pi
            assert found[1.0][i].item() == pytest.approx(float(mpmath.log(p)), rel=1e-12), (m, g)
            assert found[0.0][i].item() == pytest.approx(float(mpmath.log1p(-p)), rel=1e-12), (m, g)
            trigamma = mpmath.psi(1, z) / (2 * mpmath.pi**2) / p
            size = float(abs(trigamma))
            assert slopes[0][i].item() == pytest.approx(float(trigamma.real), rel=1e-11, abs=1e-13 * size), (m, g)
            bounded = min(float(trigamma.imag), 1e30)
            assert slopes[1][i].item() == pytest.approx(bounded, rel=1e-11, abs=1e-13 * size), (m, g)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives(check: Callable[..., bool]) -> None:
    inputs = variables([0.3, -2.0, 5.0, -0.01, 30.0, 0.2, -40.0], [0.1, 0.99, 0.5, 1.2, 4.0, 1e-3, 20.0])
    y = double(1, 0, 1, 0, 0, 1, 1)
    assert check(lambda m, g: CauchyBernoulli(m, g).log_prob(y), inputs)


def test_without_a_random_effect_it_is_the_logistic_model() -> None:
    """Log-odds far beyond where a probability has digits, and the gradient of
    logistic regression.
    """
    (loc,) = variables([0.0, 0.3, -5.0, 40.0, -300.0, 1e4])
    mine, logistic = CauchyBernoulli(loc, 0.0), dist.Bernoulli(logits=loc)
    torch.testing.assert_close(mine.logits, loc, rtol=1e-14, atol=1e-15)
    for y in (double(0.0), double(1.0)):
        torch.testing.assert_close(mine.log_prob(y), logistic.log_prob(y), rtol=1e-13, atol=1e-16)
        (found,) = torch.autograd.grad(mine.log_prob(y).sum(), loc, retain_graph=True)
        (expected,) = torch.autograd.grad(logistic.log_prob(y).sum(), loc)
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-16)


def test_limit_of_large_predictions() -> None:
    """P -> 1/2 + atan(delta / gamma) / pi, here at f = 1e8 and its sign turned;
    gamma = 1e-3 is nearly certain.
    """
    delta, gamma = double(1.0, -0.4, 0.9), double(1.0, 1.5, 1e-3)
    expected = 0.5 + torch.atan(delta / gamma) / math.pi
    torch.testing.assert_close(CauchyBernoulli(1e8 * delta, 1e8 * gamma).probs, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(CauchyBernoulli(-1e8 * delta, 1e8 * gamma).probs, 1 - expected, rtol=0, atol=1e-14)


def test_there_is_no_step_where_the_formula_changes() -> None:
    loc = double(0.0, 0.1, 3.0, 50.0)
    below, above = (CauchyBernoulli(loc, scale).logits for scale in (1.0, 1.0 + 1e-15))
    torch.testing.assert_close(below, above, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_source_predictions_of_zero_leave_finite_gradients(dtype: torch.dtype) -> None:
    gamma, delta = (torch.tensor(value, dtype=dtype, requires_grad=True) for value in (0.3, 1.0))
    f = torch.tensor([0.0, 0.0], dtype=dtype)
    log_prob = CauchyBernoulli(delta * f, gamma * f.abs()).log_prob(torch.tensor([0.0, 1.0], dtype=dtype))
    log_prob.sum().backward()
    assert gamma.grad == delta.grad == 0
    torch.testing.assert_close(log_prob, torch.full_like(f, -math.log(2)))


def test_draws() -> None:
    """As often 1 as `probs` says, and as Cauchy distributed logits say."""
    loc, scale = torch.tensor([0.7, -3.0]), torch.tensor([0.35, 2.0])
    distribution = CauchyBernoulli(loc, scale)
    assert_mean(distribution.sample((50_000,)), distribution.probs)
    assert_mean(dist.Cauchy(loc, scale).sample((50_000,)).sigmoid(), distribution.probs)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_it_is_a_bernoulli(dtype: torch.dtype) -> None:
    distribution = CauchyBernoulli(torch.randn(3, dtype=dtype), torch.rand(2, 1, dtype=dtype))
    assert isinstance(distribution, dist.Bernoulli)
    assert (distribution.batch_shape, distribution.event_shape) == ((2, 3), ())
    assert distribution.probs.dtype == distribution.log_prob(distribution.sample()).dtype == dtype
    larger = distribution.expand((4, 2, 3))
    assert isinstance(larger, CauchyBernoulli)
    assert larger.batch_shape == larger.loc.shape == larger.scale.shape == larger.sample().shape == (4, 2, 3)
    y = distribution.sample((5,))
    assert distribution.to_event(1).log_prob(y).shape == (5, 2)
    values = distribution.enumerate_support()
    torch.testing.assert_close(distribution.log_prob(values).exp().sum(0), torch.ones(2, 3, dtype=dtype))
    torch.testing.assert_close(distribution.mean, distribution.log_prob(torch.ones(2, 3, dtype=dtype)).exp())
    again = pickle.loads(pickle.dumps(distribution))
    assert torch.equal(again.log_prob(y), distribution.log_prob(y))
    mixture = PredictiveDistribution(distribution)
    torch.testing.assert_close(mixture.probs[:, 1], distribution.probs.mean(0))


def test_under_vmap() -> None:
    loc, scale = grid()
    found = torch.vmap(lambda m, g: CauchyBernoulli(m, g, validate_args=False).logits)(loc, scale)
    torch.testing.assert_close(found, CauchyBernoulli(loc, scale).logits, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("loc", "scale", "name"), [(math.nan, 1.0, "loc"), (0.0, -1e-3, "scale"), (0.0, math.nan, "scale")]
)
def test_parameters_out_of_range_are_refused(loc: float, scale: float, name: str) -> None:
    with pytest.raises(ValueError, match=f"Expected parameter {name} "):
        CauchyBernoulli(torch.tensor(loc), scale)


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="within the support"):
        CauchyBernoulli(torch.tensor(0.0), 1.0).log_prob(torch.tensor(0.5))
