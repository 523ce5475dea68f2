"""The shortest interval of a mixture: closed forms, a dense grid, tails,
bounds, and how often it is looked at.
"""

import math
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.distributions import Voigt
from bayesnn.predict import PredictiveDistribution, shortest
from bayesnn.predict.cdf import component_cdf

GENERATOR = torch.Generator().manual_seed(0)
A = torch.randn(40, 6, generator=GENERATOR, dtype=torch.double)
ONE = torch.ones(1, 1, dtype=torch.double)
LEVELS = [0.1, 0.4, 0.95]


def covers(p: PredictiveDistribution, level: float, low: Tensor, high: Tensor) -> None:
    torch.testing.assert_close(p.cdf(high) - p.cdf(low), torch.full_like(low, level), rtol=0, atol=1e-14)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "components",
    [
        dist.Normal(A[:1], 0.7),
        dist.StudentT(1.0, A[:1], 0.7),
        Voigt(A[:1], 0.5, 0.35),
        Voigt(A[:1], 0.5, 0.0),
        Voigt(A[:1], 0.5, 1e-9),
        Voigt(A[:1], 1e-6, 2.0),
        dist.Normal(0.2 * torch.cat([A, -A]), 0.7),  # many components, symmetric about 0
    ],
    ids=["normal", "cauchy", "voigt", "voigt without gamma", "small gamma", "hardly any noise", "symmetric mixture"],
)
def test_symmetric_unimodal_is_equal_tailed(components: Any, level: float) -> None:
    p = PredictiveDistribution(components)
    low, high = p.highest_density_interval(level)
    covers(p, level, low, high)
    expected = p.interval(level)
    for found, end in zip((low, high), expected, strict=True):
        assert ((found - end).abs() <= 1e-6 * (expected[1] - expected[0])).all()


def test_voigt_half_width() -> None:
    """The published half-width of the central 95 % with sigma = .5, gamma |f| = .35."""
    low, high = PredictiveDistribution(Voigt(ONE, 0.5, 0.35)).highest_density_interval(0.95)
    assert (high - low).item() / 2 == pytest.approx(4.5037667446, abs=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_monotone_densities_end_at_the_bound(level: float) -> None:
    p = PredictiveDistribution(dist.Exponential(2 * ONE))
    low, high = p.highest_density_interval(level)
    assert low.item() == 0
    assert high.item() == pytest.approx(-math.log1p(-level) / 2, rel=1e-12)
    # F = y^3 on [0, 1]
    powers = PredictiveDistribution(torch.distributions.Kumaraswamy(3 * ONE, ONE))
    low, high = powers.highest_density_interval(level)
    assert high.item() == 1
    assert low.item() == pytest.approx((1 - level) ** (1 / 3), rel=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_log_normal(level: float) -> None:
    """log y = m + s z at the ends: equal densities mean z1 + z2 = -2 s, and
    Phi(z2) - Phi(z1) = level.
    """
    s, phi = 0.8, torch.special.ndtr
    z = torch.linspace(-9, 0, 400_001, dtype=torch.double) - s
    z1 = z[(phi(-2 * s - z) - phi(z) - level).abs().argmin()]
    low, high = PredictiveDistribution(dist.LogNormal(0.3 * ONE, s)).highest_density_interval(level)
    assert low.item() == pytest.approx(math.exp(0.3 + s * z1), rel=1e-5)
    assert high.item() == pytest.approx(math.exp(0.3 + s * (-2 * s - z1)), rel=1e-5)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double).unsqueeze(1)


MIXTURES = {
    "two modes": dist.Normal(column(-3.0, 2.0, 2.2), column(0.3, 1.0, 1.0)),
    "skewed": dist.Normal(column(0.0, 1.0), column(0.5, 3.0)),
    "gamma": dist.Gamma(column(2.0, 9.0), ONE),
    "a valley": dist.Normal(column(-1.0, 1.0), 0.05 * ONE),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", MIXTURES)
def test_no_interval_of_a_dense_grid_is_shorter(kind: str, level: float) -> None:
    """50,000 lower tails; quantiles by interpolation of the cdf."""
    p = PredictiveDistribution(MIXTURES[kind])
    y = torch.linspace(p.icdf(1e-7).item(), p.icdf(1 - 1e-7).item(), 200_001, dtype=torch.double)
    f = p.cdf(y.unsqueeze(1)).squeeze(1)
    tail = torch.linspace(2e-7, 1 - level - 2e-7, 50_001, dtype=torch.double)

    def inverse(at: Tensor) -> Tensor:
        right = torch.searchsorted(f, at)
        return torch.lerp(y[right - 1], y[right], (at - f[right - 1]) / (f[right] - f[right - 1]))

    shortest = (inverse(tail + level) - inverse(tail)).min().item()
    low, high = p.highest_density_interval(level)
    covers(p, level, low, high)
    assert (high - low).item() == pytest.approx(shortest, rel=1e-6)


def test_ends_have_one_density_and_events_are_apart() -> None:
    """Mixtures of many draws, two targets an example, and a joint normal by its margins."""
    scale = (0.4 * A).exp()
    p = PredictiveDistribution(dist.LogNormal(0.3 * A, 0.5 * scale))
    low, high = p.highest_density_interval(0.8)
    torch.testing.assert_close(p.log_prob(low), p.log_prob(high), rtol=0, atol=1e-6)
    loc = A.reshape(40, 3, 2)
    alone = PredictiveDistribution(dist.Normal(loc, 1.0).to_event(1)).highest_density_interval(0.8)
    joint = PredictiveDistribution(dist.MultivariateNormal(loc, torch.eye(2).double())).highest_density_interval(0.8)
    assert alone[0].shape == (3, 2)
    torch.testing.assert_close(alone, joint)


def test_single_precision_and_batches() -> None:
    p = PredictiveDistribution(dist.Gamma((0.3 * A).exp().float(), 1.0))
    low, high = p.highest_density_interval(0.9)
    assert low.dtype == torch.float
    torch.testing.assert_close(p.cdf(high) - p.cdf(low), torch.full((6,), 0.9), rtol=0, atol=1e-5)
    each = PredictiveDistribution(dist.Gamma((0.3 * A[:, 2:3]).exp().float(), 1.0)).highest_density_interval(0.9)
    torch.testing.assert_close((low[2:3], high[2:3]), each, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("components", [Voigt(A, 0.5, 0.1), dist.Gamma(A.exp(), 1.0), dist.StudentT(1.0, A, 1.0)])
def test_it_is_cheap(components: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred evaluations of the cdf, whatever the tails: a golden section over quantiles
    needs thousands.
    """
    calls = []

    def counted(*args: Any) -> Tensor:
        calls.append(1)
        return component_cdf(*args)

    monkeypatch.setattr(shortest, "component_cdf", counted)
    PredictiveDistribution(components).highest_density_interval(0.9)
    assert 48 < len(calls) < 600


def test_what_is_refused() -> None:
    p = PredictiveDistribution(dist.Normal(A, 1.0))
    for level in (0.0, 1.0, 95, float("nan")):
        with pytest.raises(ValueError, match="highest_density_interval: the level lies strictly between 0 and 1"):
            p.highest_density_interval(level)
    with pytest.raises(NotImplementedError, match=r"counts have no density; use probs, or interval"):
        PredictiveDistribution(dist.Poisson(A.exp())).highest_density_interval()
    with pytest.raises(NotImplementedError, match="labels and counts have no density; use probs"):
        PredictiveDistribution(dist.Bernoulli(logits=A)).highest_density_interval()
