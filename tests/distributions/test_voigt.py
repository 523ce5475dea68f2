"""`Voigt` against mpmath, SciPy, quadrature and its limits; its gradients; its
behaviour as a Pyro distribution.
"""

import math
import pickle
from collections.abc import Callable
from itertools import pairwise

import mpmath
import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import integrate, special, stats
from statistical import FALSE_ALARM
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from bayesnn.distributions import Voigt
from bayesnn.distributions.chunks import CHUNK
from bayesnn.distributions.voigt.faddeeva import faddeeva
from bayesnn.predict import PredictiveDistribution

RATIOS = [1e-6, 1e-4, 1e-2, 0.3, 1.0, 3.7, 8.9, 30.0, 1e3, 1e5]
"""gamma / sigma."""
DEVIATIONS = [0.0, 1e-3, 0.5, 1.3, 3.1, 4.7, 5.6, 7.9, 15.0, 60.0, 300.0, 900.0]
"""|y - loc| / sigma."""


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def grid() -> tuple[Tensor, Tensor]:
    """All pairs of deviation and ratio."""
    pairs = torch.cartesian_prod(double(*DEVIATIONS), double(*RATIOS))
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous()


def standard(ratio: Tensor | float) -> Voigt:
    return Voigt(double(0.0), double(1.0), torch.as_tensor(ratio, dtype=torch.double))


def variables(*columns: list[float]) -> list[Tensor]:
    return [torch.tensor(column, dtype=torch.double, requires_grad=True) for column in columns]


@pytest.mark.parametrize(
    ("y", "f", "delta", "gamma", "sigma", "expected"),
    [
        (1.3, 0.7, 1.0, 0.5, 0.5, -1.1121911653),
        (5.0, -2.0, 0.9, 0.1, 0.5, -6.5723741291),
        (0.2, 3.0, -0.4, 1.5, 0.3, -2.7438166312),
    ],
)
def test_golden_log_densities(y: float, f: float, delta: float, gamma: float, sigma: float, expected: float) -> None:
    found = Voigt(double(delta * f), double(sigma), double(gamma * abs(f))).log_prob(double(y))
    assert found.item() == pytest.approx(expected, abs=6e-11)


def test_golden_half_widths() -> None:
    upper = Voigt(double(0.0), double(0.5), double(0.35)).icdf(double(0.75, 0.975))
    torch.testing.assert_close(upper, double(0.5706357249, 4.5037667446), rtol=0, atol=6e-11)


def test_density_equals_scipys_voigt_profile_and_faddeeva_function() -> None:
    y, ratio = grid()
    found = standard(ratio).log_prob(y).exp()
    torch.testing.assert_close(
        found, torch.as_tensor(special.voigt_profile(y.numpy(), 1.0, ratio.numpy())), rtol=1e-12, atol=0
    )
    z = (y + 1j * ratio) / math.sqrt(2)
    w = torch.as_tensor(special.wofz(z.numpy()))
    torch.testing.assert_close(found, w.real / math.sqrt(2 * math.pi), rtol=1e-12, atol=0)


def test_gradient_equals_mpmaths() -> None:
    """d log p by loc, sigma and gamma from w' and w'' in 60 digits."""
    y, ratio = grid()
    loc, sigma, gamma = (value.clone().requires_grad_() for value in (0 * y, 0 * y + 1, ratio))
    found = torch.autograd.grad(Voigt(loc, sigma, gamma).log_prob(y).sum(), [loc, sigma, gamma])
    with mpmath.workdps(60):
        for i, (x, a) in enumerate(zip(y.tolist(), ratio.tolist(), strict=True)):
            z = mpmath.mpc(x, a) / mpmath.sqrt(2)
            w = mpmath.exp(-(z**2)) * mpmath.erfc(-1j * z)
            first = -2 * z * w + 2j / mpmath.sqrt(mpmath.pi)
            second = -2 * w - 2 * z * first
            expected = [
                -first.real / w.real / mpmath.sqrt(2),
                second.real / w.real / 2,
                -first.imag / w.real / mpmath.sqrt(2),
            ]
            for mine, exact in zip(found, expected, strict=True):
                assert float(abs(mine[i].item() - exact)) <= 1e-11 * float(abs(exact)) + 1e-16, (x, a)


def test_gradient_needs_more_than_the_chain_rule() -> None:
    """In the Cauchy limit d log p / d sigma = 2 sigma (3
    y^2 - gamma^2) / (y^2 + gamma^2)^2, ten digits smaller.
    """
    (sigma,) = variables([1.0])
    Voigt(double(0.0), sigma, double(1e5)).log_prob(double(2e5)).backward()
    assert sigma.grad is not None
    assert sigma.grad.item() == pytest.approx(2 * (3 * 4 - 1) * 1e10 / 5e10**2, rel=1e-8)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives_of_log_density_and_cdf(check: Callable[..., bool]) -> None:
    sigma, gamma = [0.5, 1.0, 0.7, 2.0, 1.0, 0.3, 0.6], [0.2, 1e-2, 3.0, 0.5, 0.1, 0.3, 100.0]
    inputs = variables([0.0, 0.3, -2.0, 5.0, -8.0, 30.0, -200.0], [0.1] * 7, sigma, gamma)
    assert check(lambda y, m, s, g: Voigt(m, s, g).log_prob(y), inputs)
    assert check(lambda y, m, s, g: Voigt(m, s, g).cdf(y), inputs)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives_of_quantiles(check: Callable[..., bool]) -> None:
    inputs = variables([0.3, 0.1, 0.7, 0.01], [0.1] * 4, [0.5, 1.0, 0.7, 2.0], [0.2, 1e-2, 3.0, 0.5])
    assert check(lambda p, m, s, g: Voigt(m, s, g).icdf(p), inputs)


def test_third_derivatives_are_refused() -> None:
    (gamma,) = variables([0.3])
    value = Voigt(double(0.0), double(1.0), gamma).log_prob(double(0.5))
    for _ in range(2):
        (value,) = torch.autograd.grad(value.sum(), gamma, create_graph=True)
    with pytest.raises(NotImplementedError, match="at most twice"):
        torch.autograd.grad(value.sum(), gamma)


def test_without_cauchy_part_it_is_normal() -> None:
    """Also 60 standard deviations out, where the density is below the smallest
    double, and with its gradient.
    """
    y = double(0.0, -0.7, 3.0, 20.0, -60.0)
    loc, sigma, gamma = variables([0.2], [1.3], [0.0])
    mine, normal = Voigt(loc, sigma, gamma), torch.distributions.Normal(loc, sigma)
    torch.testing.assert_close(mine.log_prob(y), normal.log_prob(y), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(mine.cdf(y), normal.cdf(y), rtol=1e-12, atol=1e-16)
    p = double(1e-6, 0.3, 0.5, 0.99)
    torch.testing.assert_close(mine.icdf(p), normal.icdf(p), rtol=1e-9, atol=1e-13)
    assert mine.mean.item() == 0.2
    assert mine.variance.item() == pytest.approx(1.69)
    found = torch.autograd.grad(mine.log_prob(y).sum(), [loc, sigma, gamma])
    expected = torch.autograd.grad(normal.log_prob(y).sum(), [loc, sigma])
    torch.testing.assert_close(found[:2], expected, rtol=1e-12, atol=1e-12)
    assert found[2].isfinite()


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_source_predictions_of_zero_leave_finite_gradients(dtype: torch.dtype) -> None:
    gamma = torch.tensor(0.3, dtype=dtype, requires_grad=True)
    f = torch.tensor([0.0, 0.0], dtype=dtype)
    Voigt(f, torch.ones(2, dtype=dtype), gamma * f.abs()).log_prob(f.new_tensor([1.0, 40.0])).sum().backward()
    assert gamma.grad == 0


def test_without_normal_part_it_is_cauchy() -> None:
    y, p = double(-3.0, 0.0, 0.4, 1e4), double(1e-6, 0.3, 0.5, 0.99)
    mine, cauchy = Voigt(double(0.2), double(1e-7), double(1.3)), torch.distributions.Cauchy(double(0.2), double(1.3))
    torch.testing.assert_close(mine.log_prob(y), cauchy.log_prob(y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mine.cdf(y), cauchy.cdf(y), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(mine.icdf(p), cauchy.icdf(p), rtol=1e-9, atol=1e-12)
    assert mine.mean.isnan()
    assert mine.variance == torch.inf
    assert mine.mode == 0.2


@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 0.05, 0.4, 1.0, 2.9, 4.5, 6.0, 8.88, 8.9, 40.0])
def test_cdf_equals_adaptive_quadrature(ratio: float) -> None:
    """The steps between neighbouring points; the first from 0, where it is 1/2."""
    points = [0.0, 0.2, 0.9, 2.0, 3.3, 5.0, 8.0, 40.0, 300.0]
    found = standard(ratio).cdf(double(*points))
    assert found[0] == pytest.approx(0.5, abs=1e-13)
    for i, (a, b) in enumerate(pairwise(points)):
        step, _ = integrate.quad(special.voigt_profile, a, b, (1.0, ratio), epsabs=1e-13, epsrel=1e-13, limit=500)
        assert (found[i + 1] - found[i]).item() == pytest.approx(step, abs=1e-12)
    torch.testing.assert_close(standard(ratio).cdf(-double(*points)), 1 - found, rtol=0, atol=1e-15)


def test_cdf_keeps_the_relative_accuracy_of_its_tails() -> None:
    """Against 1 / y - s^2 / y^3 ... of a Cauchy tail: its asymptotic series gamma / (pi y)
    (1 + (1 - g^2/3) / y^2).
    """
    y, gamma = 1e4, 1e-5
    expected = gamma / (math.pi * y) * (1 + (1 - gamma**2 / 3) / y**2)
    assert standard(gamma).cdf(double(-y)).item() == pytest.approx(expected, rel=1e-12)


def test_quantiles_invert_the_cdf() -> None:
    p = double(1e-12, 1e-6, 0.01, 0.2, 0.4999, 0.5)
    distribution = standard(double(0.0, *RATIOS).unsqueeze(1))
    torch.testing.assert_close(
        distribution.cdf(distribution.icdf(p)), p.expand(len(RATIOS) + 1, -1), rtol=1e-12, atol=0
    )
    upper = distribution.cdf(distribution.icdf(1 - p))
    torch.testing.assert_close(upper, (1 - p).expand(len(RATIOS) + 1, -1), rtol=0, atol=1e-15)
    assert standard(1.0).icdf(double(0.0, 1.0)).tolist() == [-math.inf, math.inf]


def test_draws_have_the_cdf() -> None:
    """The largest distance of the empirical cdf by the inequality of Dvoretzky,
    Kiefer, Wolfowitz and Massart.
    """
    count = 50_000
    distribution = Voigt(torch.tensor(0.3), torch.tensor(0.5), torch.tensor([0.0, 0.35]))
    draws = distribution.sample((count,))
    for i in range(2):
        distance = stats.kstest(distribution.cdf(draws)[:, i].double().numpy(), "uniform").statistic
        assert distance <= math.sqrt(math.log(2 * 2 / FALSE_ALARM) / (2 * count))


def test_draws_are_reparameterised() -> None:
    loc, sigma, gamma = (torch.tensor(value, requires_grad=True) for value in (0.3, 0.5, 0.35))
    pyro.set_rng_seed(1)
    draws = Voigt(loc, sigma, gamma).rsample((4, 3))
    slopes = [torch.autograd.grad(draw, [loc, sigma, gamma], retain_graph=True) for draw in draws.flatten()]
    rebuilt = torch.stack([a * loc + b * sigma + c * gamma for a, b, c in slopes])
    torch.testing.assert_close(rebuilt, draws.flatten())
    assert all(a == 1 for a, _, _ in slopes)


def test_many_values_equal_few() -> None:
    y = torch.linspace(-5, 5, CHUNK + 7, dtype=torch.double)
    for function in (standard(0.3).log_prob, standard(0.3).cdf):
        torch.testing.assert_close(function(y)[-20:], function(y[-20:]), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_shapes_and_dtypes(dtype: torch.dtype) -> None:
    distribution = Voigt(torch.zeros(3, dtype=dtype), 0.5, torch.rand(2, 1, dtype=dtype))
    assert (distribution.batch_shape, distribution.event_shape) == ((2, 3), ())
    larger = distribution.expand((4, 2, 3))
    assert larger.batch_shape == larger.sample().shape == (4, 2, 3)
    y = distribution.sample((5,))
    assert y.shape == (5, 2, 3)
    for result in (distribution.log_prob(y), distribution.cdf(y), distribution.icdf(distribution.cdf(y))):
        assert (result.shape, result.dtype) == ((5, 2, 3), dtype)
    torch.testing.assert_close(larger.log_prob(y[0]), distribution.log_prob(y[0]).expand(4, 2, 3))
    assert distribution.to_event(1).log_prob(y).shape == (5, 2)
    again = pickle.loads(pickle.dumps(distribution))
    assert torch.equal(again.log_prob(y), distribution.log_prob(y))
    assert torch.equal(torch.vmap(distribution.log_prob)(y), distribution.log_prob(y))


def test_single_precision_is_an_island_of_double() -> None:
    """float32 arguments: the result is the double one, rounded, where single
    precision had no digits.
    """
    y, ratio = grid()
    found = Voigt(torch.zeros(()), 1.0, ratio.float()).log_prob(y.float())
    exact = standard(ratio.float().double()).log_prob(y.float().double())
    torch.testing.assert_close(found.double(), exact, rtol=6e-8, atol=0)


def test_values_at_infinity() -> None:
    y = double(-math.inf, math.inf)
    assert standard(0.3).log_prob(y).tolist() == [-math.inf, -math.inf]
    assert standard(0.3).cdf(y).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("loc", "sigma", "gamma", "name"),
    [(math.nan, 1.0, 1.0, "loc"), (0.0, 0.0, 1.0, "scale_normal"), (0.0, math.nan, 1.0, "scale_normal"),
     (0.0, 1.0, -1e-3, "scale_cauchy"), (0.0, 1.0, math.nan, "scale_cauchy")],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(loc: float, sigma: float, gamma: float, name: str) -> None:
    with pytest.raises(ValueError, match=f"Expected parameter {name} "):
        Voigt(torch.tensor(loc), sigma, gamma)


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="within the support"):
        standard(1.0).log_prob(double(math.nan))
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"Voigt.icdf: probabilities lie in \[0, 1\]"):
            standard(1.0).icdf(double(0.5, p))


def test_as_a_pyro_site_and_in_predictive_mixtures() -> None:
    def model() -> None:
        with pyro.plate("data", 3):
            pyro.sample("y", Voigt(torch.zeros(3), 0.5, 0.35), obs=torch.ones(3))

    expected = 3 * Voigt(torch.tensor(0.0), 0.5, 0.35).log_prob(torch.tensor(1.0))
    torch.testing.assert_close(poutine.trace(model).get_trace().log_prob_sum(), expected)
    mixture = PredictiveDistribution(Voigt(torch.zeros(4, 2, dtype=torch.double), 0.5, 0.35))
    lower, upper = mixture.interval(0.95)
    torch.testing.assert_close(upper, double(4.5037667446, 4.5037667446), rtol=0, atol=1e-8)
    torch.testing.assert_close(lower, -upper, rtol=0, atol=1e-8)
    with pytest.raises(NotImplementedError, match="Voigt has no finite mean"):
        _ = mixture.mean


def test_faddeeva_function_on_the_axes() -> None:
    """w(i y) = erfcx(y), and w(x) = exp(-x^2) + 2i/sqrt(pi) dawsn(x)."""
    t = np.array([0.0, 1e-7, 0.3, 1.0, 2.5, 6.2, 6.3, 30.0, 1e4])
    t_, zero = torch.as_tensor(t), torch.zeros(len(t), dtype=torch.double)
    torch.testing.assert_close(faddeeva(zero, t_)[0].real, torch.as_tensor(special.erfcx(t)), rtol=1e-13, atol=0)
    (w,) = faddeeva(t_, zero)
    torch.testing.assert_close(w.real, torch.exp(-(t_**2)), rtol=1e-13, atol=0)
    dawson = torch.as_tensor(special.dawsn(t)) * (2 / math.sqrt(math.pi))
    torch.testing.assert_close(w.imag, dawson, rtol=1e-13, atol=1e-16)
