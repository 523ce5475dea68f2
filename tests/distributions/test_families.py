"""Other families of the random effect: `NormalStudentT` and `NormalBernoulli` against quadrature
and their limits.
"""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from scipy import integrate, special, stats
from statistical import FALSE_ALARM, assert_mean
from torch import Tensor
from torch.autograd import gradcheck

from bayesnn.distributions import NormalBernoulli, NormalStudentT, Voigt
from bayesnn.predict import PredictiveDistribution


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def convolution(y: float, df: float, scale: float) -> float:
    """The density of Z + scale T by adaptive quadrature over Z, in panels around both peaks."""

    def integrand(z: float) -> float:
        return stats.norm.pdf(z) * stats.t.pdf((y - z) / scale, df) / scale

    steps = np.array([-30.0, -10, -3, -1, 0, 1, 3, 10, 30])
    points = np.unique(np.clip(np.concatenate([y + scale * steps, [-8.0, -4, 0, 4, 8]]), -30, 30))
    panels = pairwise(points.tolist())
    return sum(integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-11, limit=200)[0] for a, b in panels)


@pytest.mark.parametrize("df", [1.0, 3.5, 100.0])
@pytest.mark.parametrize("scale", [0.03, 1.0, 10.0])
@pytest.mark.parametrize("y", [0.0, 2.0, 8.0, 300.0])
def test_student_density_equals_adaptive_quadrature(df: float, scale: float, y: float) -> None:
    found = NormalStudentT(double(df), 0.0, 1.0, double(scale)).log_prob(double(y)).exp().item()
    assert found == pytest.approx(convolution(y, df, scale), rel=1e-8)


def test_student_with_one_degree_of_freedom_is_voigt() -> None:
    y, scale = torch.cartesian_prod(double(-1000.0, -3.0, 0.0, 0.5, 50.0), double(1e-3, 0.1, 1.0, 10.0)).T
    mine, voigt = NormalStudentT(1.0, 0.3, 0.7, scale), Voigt(0.3, 0.7, scale)
    torch.testing.assert_close(mine.log_prob(y), voigt.log_prob(y), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mine.cdf(y), voigt.cdf(y), rtol=0, atol=1e-10)
    assert mine.mean.isnan().all()
    assert mine.variance.isinf().all()


def test_student_alone_and_its_normal_limit() -> None:
    y = double(-20.0, -1.0, 0.0, 0.7)
    alone = NormalStudentT(double(4.0), 0.0, 1e-9, 1.0)
    torch.testing.assert_close(alone.log_prob(y).exp(), torch.as_tensor(stats.t.pdf(y.numpy(), 4.0)), rtol=1e-9, atol=0)
    torch.testing.assert_close(alone.cdf(y), torch.as_tensor(stats.t.cdf(y.numpy(), 4.0)), rtol=1e-9, atol=0)
    normal, limit = dist.Normal(double(0.2), math.sqrt(1.25)), NormalStudentT(double(1e6), 0.2, 1.0, 0.5)
    torch.testing.assert_close(limit.log_prob(y[1:]), normal.log_prob(y[1:]), rtol=0, atol=1e-6)
    assert NormalStudentT(4.0, 0.2, 1.0, 0.5).variance.item() == pytest.approx(1.5)


def test_student_derivatives() -> None:
    inputs = [double(0.3, -4.0), double(2.5, 4.0), double(0.1, 0.0), double(0.5, 1.0), double(0.4, 2.0)]
    inputs = [value.requires_grad_() for value in inputs]
    assert gradcheck(lambda y, df, m, s, t: NormalStudentT(df, m, s, t).log_prob(y), inputs)
    assert gradcheck(lambda y, df, m, s, t: NormalStudentT(df, m, s, t).cdf(y), inputs)


def test_student_draws_have_the_cdf() -> None:
    count = 20_000
    distribution = NormalStudentT(torch.tensor(3.0), 0.3, 0.5, 0.8)
    draws = distribution.cdf(distribution.sample((count,)))
    distance = stats.kstest(draws.double().numpy(), "uniform").statistic
    assert distance <= math.sqrt(math.log(2 / FALSE_ALARM) / (2 * count))


def test_student_shapes() -> None:
    distribution = NormalStudentT(torch.tensor([[2.0], [5.0]]), torch.zeros(3), 0.5, 0.8)
    assert distribution.batch_shape == (2, 3)
    larger = distribution.expand((4, 2, 3))
    y = larger.rsample((5,))
    assert y.shape == larger.log_prob(y).shape == larger.cdf(y).shape == (5, 4, 2, 3)
    assert larger.log_prob(y).dtype == torch.float
    again = pickle.loads(pickle.dumps(larger))
    assert torch.equal(again.log_prob(y), larger.log_prob(y))
    lower, upper = PredictiveDistribution(distribution).interval(0.9)
    torch.testing.assert_close(lower, -upper)
    with pytest.raises(ValueError, match="Expected parameter df "):
        NormalStudentT(torch.tensor(0.0), 0.0, 1.0, 1.0)


@pytest.mark.parametrize("scale", [1e-3, 0.7, 0.999, 1.0, 3.0, 20.0, 300.0])
@pytest.mark.parametrize("loc", [0.0, 0.3, -7.0, 15.0])
def test_normal_logit_equals_adaptive_quadrature(loc: float, scale: float) -> None:
    steps = np.array([-40.0, -10, -3, 0, 3, 10, 40]) / scale
    points = np.unique(np.clip(np.concatenate([steps - loc / scale, [-3.0, 0, 3]]), -10, 10))
    points = np.unique([-10.0, *points, 10.0])
    panels = pairwise(points.tolist())
    expected = sum(
        integrate.quad(lambda z: stats.norm.pdf(z) * special.expit(loc + scale * z), a, b, epsabs=1e-13, limit=200)[0]
        for a, b in panels
    )
    found = NormalBernoulli(double(loc), double(scale)).probs.item()
    assert found == pytest.approx(expected, abs=1e-11)


def test_normal_logit_limits_and_derivatives() -> None:
    """The logistic model without a random effect; Phi(loc / scale) for a large one; gradients,
    certain outcomes too.
    """
    loc = double(-300.0, -2.0, 0.0, 0.4, 30.0)
    torch.testing.assert_close(NormalBernoulli(loc, 0.0).logits, loc, rtol=1e-12, atol=1e-14)
    far = NormalBernoulli(1e7 * double(-0.5, 1.2), 1e7).probs
    torch.testing.assert_close(far, torch.special.ndtr(double(-0.5, 1.2)), rtol=0, atol=1e-12)
    inputs = [double(0.3, -2.0, 5.0).requires_grad_(), double(0.2, 2.0, 0.9).requires_grad_()]
    assert gradcheck(lambda m, s: NormalBernoulli(m, s).log_prob(double(1, 0, 0)), inputs)
    certain, scale = double(-500.0, 500.0).requires_grad_(), double(2.0).requires_grad_()
    slopes = torch.autograd.grad(NormalBernoulli(certain, scale).log_prob(double(1.0)).sum(), [certain, scale])
    assert all(slope.isfinite().all() for slope in slopes)


def test_normal_logit_is_a_bernoulli() -> None:
    distribution = NormalBernoulli(torch.tensor([0.7, -3.0]), torch.tensor([[0.35], [2.0]]))
    larger = distribution.expand((3, 2, 2))
    assert larger.batch_shape == larger.sample().shape == (3, 2, 2)
    assert_mean(distribution.sample((20_000,)), distribution.probs)
    y = distribution.sample()
    assert torch.equal(pickle.loads(pickle.dumps(distribution)).log_prob(y), distribution.log_prob(y))
    torch.testing.assert_close(PredictiveDistribution(distribution).probs[:, 1], distribution.probs.mean(0))
    with pytest.raises(ValueError, match="Expected parameter scale "):
        NormalBernoulli(torch.tensor(0.0), -1.0)
