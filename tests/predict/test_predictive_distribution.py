"""`PredictiveDistribution` against SciPy, draw by draw: densities, moments, samples, quantiles."""

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from scipy import stats
from statistical import assert_mean
from torch import Tensor

from bayesnn.predict import PredictiveDistribution
from bayesnn.predict import distribution as implementation

DRAWS, BATCH, EVENT = 5, 3, 2
GENERATOR = torch.Generator().manual_seed(0)
A, B = (torch.randn(DRAWS, BATCH, EVENT, dtype=torch.double, generator=GENERATOR) for _ in range(2))


class Family(NamedTuple):
    components: Any  # pyro.distributions, batch [draw, batch, event]
    frozen: Any  # the same in SciPy
    discrete: bool = False


def families() -> dict[str, Family]:
    scale, rate = (0.3 * B).exp(), A.exp()
    a, s, r = A.numpy(), scale.numpy(), rate.numpy()
    return {
        "normal": Family(dist.Normal(A, scale), stats.norm(a, s)),
        "student-t": Family(dist.StudentT(5.0, A, scale), stats.t(5.0, a, s)),
        "laplace": Family(dist.Laplace(A, scale), stats.laplace(a, s)),
        "poisson": Family(dist.Poisson(5 * rate), stats.poisson(5 * r), discrete=True),
        "negative binomial": Family(
            dist.GammaPoisson(2 * scale, rate), stats.nbinom(2 * s, r / (1 + r)), discrete=True
        ),
        "exponential": Family(dist.Exponential(rate), stats.expon(scale=1 / r)),
        "gamma": Family(dist.Gamma(2 * scale, rate), stats.gamma(2 * s, scale=1 / r)),
        "log-normal": Family(dist.LogNormal(A, scale), stats.lognorm(s, scale=np.exp(a))),
        "uniform": Family(dist.Uniform(A, A + scale), stats.uniform(a, s)),
        "half-cauchy": Family(dist.HalfCauchy(scale), stats.halfcauchy(scale=s)),
    }


FAMILIES = families()
every_family = pytest.mark.parametrize("kind", FAMILIES)
# Draws of this one differ in their support, where torch refuses values.
with_one_support = pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "uniform"])
with_moments = pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "half-cauchy"])


def mixture(kind: str) -> PredictiveDistribution:
    return PredictiveDistribution(FAMILIES[kind].components.to_event(1))


def targets(kind: str) -> Tensor:
    """Values inside every component's support, [4, batch, event]."""
    if kind == "uniform":
        low, high = FAMILIES[kind].components.low.amax(0), FAMILIES[kind].components.high.amin(0)
        return torch.stack([low + t * (high - low) for t in (0.2, 0.4, 0.6, 0.8)])
    return FAMILIES[kind].components.sample((4,))[:, 0]


@with_one_support
def test_density(kind: str) -> None:
    y = FAMILIES[kind].components.sample((4,))[:, 0]
    frozen = FAMILIES[kind].frozen
    log = frozen.logpmf if FAMILIES[kind].discrete else frozen.logpdf
    # [4, draw, batch]: the event is one draw's
    each = torch.from_numpy(log(y.unsqueeze(1).numpy())).sum(-1)
    found = mixture(kind).log_prob(y)
    assert found.shape == (4, BATCH)
    torch.testing.assert_close(found, each.logsumexp(1) - math.log(DRAWS))
    torch.testing.assert_close(mixture(kind).log_prob(y[0]), found[0])


@with_moments
def test_moments(kind: str) -> None:
    p, frozen = mixture(kind), FAMILIES[kind].frozen
    means, variances = (torch.from_numpy(np.asarray(part)) for part in (frozen.mean(), frozen.var()))
    torch.testing.assert_close(p.mean, means.mean(0))
    torch.testing.assert_close(p.aleatoric_variance, variances.mean(0))
    torch.testing.assert_close(p.epistemic_variance, ((means - means.mean(0)) ** 2).mean(0))
    second = (variances + means**2).mean(0)
    torch.testing.assert_close(p.variance, second - means.mean(0) ** 2)
    torch.testing.assert_close(p.stddev, p.variance.sqrt())


@with_moments
def test_samples(kind: str) -> None:
    p = mixture(kind)
    y = p.sample((20_000,))
    assert y.shape == (20_000, BATCH, EVENT)
    if kind not in ("student-t", "log-normal"):  # whose squares have too heavy tails for a z-test
        assert_mean((y - p.mean) ** 2, p.variance)
    assert_mean(y, p.mean)
    assert_mean((y <= p.mean).double(), p.cdf(p.mean))
    means = torch.from_numpy(np.asarray(FAMILIES[kind].frozen.mean()))
    if kind not in ("student-t", "log-normal"):  # the two targets of an example are from one draw
        assert_mean(y[..., 0] * y[..., 1], (means[..., 0] * means[..., 1]).mean(0))


def test_samples_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few numbers are drawn at a time."""
    p = mixture("normal")
    for numbers in (1, 100, 10**9):
        monkeypatch.setattr(implementation, "NUMBERS", numbers)
        y = p.sample((300,))
        assert_mean(y, p.mean)
        for shape in ((), (2, 3), (0,)):
            assert p.sample(shape).shape == (*shape, BATCH, EVENT)


@every_family
def test_cdf(kind: str) -> None:
    """Also outside of the support."""
    y = targets(kind)
    y = torch.cat(
        [y, y + 0.5, -y - 1, torch.zeros_like(y[:1]), torch.full_like(y[:1], 1e6), torch.full_like(y[:1], -1e6)]
    )
    expected = torch.from_numpy(FAMILIES[kind].frozen.cdf(y.unsqueeze(1).numpy())).mean(1)
    state = torch.get_rng_state()
    found = mixture(kind).cdf(y)
    assert torch.equal(state, torch.get_rng_state())  # nothing is drawn
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@every_family
@pytest.mark.parametrize("level", [1e-6, 0.025, 0.5, 0.9, 1 - 1e-6])
def test_icdf(kind: str, level: float) -> None:
    p = mixture(kind)
    y = p.icdf(level)
    assert y.shape == (BATCH, EVENT)
    assert y.dtype == torch.double
    if FAMILIES[kind].discrete:
        assert torch.equal(y, y.round())
        assert (y >= 0).all()
        assert (p.cdf(y) >= level).all()
        assert (p.cdf(y - 1) < level).all()
    else:
        torch.testing.assert_close(p.cdf(y), torch.full_like(y, level), rtol=1e-9, atol=1e-13)


@with_one_support
def test_icdf_of_one_draw_is_scipys(kind: str) -> None:
    frozen = FAMILIES[kind].frozen
    parts = [PredictiveDistribution(one) for one in single_draws(kind)]
    for level in (0.01, 0.5, 0.975):
        expected = torch.from_numpy(np.asarray(frozen.ppf(level))).double()
        found = torch.stack([part.icdf(level) for part in parts])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def single_draws(kind: str) -> list[Any]:
    """Every draw of a family as a mixture of one."""
    components = FAMILIES[kind].components
    arguments = {name: getattr(components, name) for name in type(components).arg_constraints}
    return [
        type(components)(**{n: v.expand(A.shape)[s : s + 1] for n, v in arguments.items()}).to_event(1)
        for s in range(DRAWS)
    ]


def test_intervals_and_levels() -> None:
    p = mixture("normal")
    low, high = p.interval(0.9)
    torch.testing.assert_close(p.cdf(high) - p.cdf(low), torch.full((BATCH, EVENT), 0.9, dtype=torch.double))
    torch.testing.assert_close(low, p.icdf(0.05))
    default = p.interval()
    torch.testing.assert_close(p.cdf(default[0]), torch.full((BATCH, EVENT), 0.025, dtype=torch.double))
    levels = torch.tensor([0.1, 0.5, 0.9])
    many = p.icdf(levels.reshape(3, 1, 1))
    assert many.shape == (3, BATCH, EVENT)
    for level, one in zip(levels.double(), many, strict=True):
        torch.testing.assert_close(one, p.icdf(level), rtol=1e-12, atol=1e-12)
    each = p.icdf(levels.reshape(3, 1))  # one level an example
    torch.testing.assert_close(each, torch.stack([many[i, i] for i in range(3)]))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, float("nan"), torch.tensor([0.5, 1.0])])
def test_levels_outside(level: Any) -> None:
    with pytest.raises(ValueError, match="icdf: levels lie strictly between 0 and 1"):
        mixture("normal").icdf(level)


def test_single_precision() -> None:
    loc = torch.tensor([[[0.0]], [[3.0]]])
    p = PredictiveDistribution(dist.Normal(loc, 1.0).to_event(1))
    assert p.icdf(0.975).dtype == torch.float
    torch.testing.assert_close(p.cdf(p.icdf(0.3)).item(), 0.3, rtol=1e-6, atol=0)
    # beyond the integers of this precision
    counts = PredictiveDistribution(dist.Poisson(torch.full((1, 1), 1e9)))
    assert counts.icdf(0.5).item() == pytest.approx(1e9, rel=1e-3)


@pytest.mark.parametrize("family", [dist.StudentT(1.0, A, 1.0), dist.Cauchy(A, torch.ones_like(A))])
def test_tails_without_moments(family: Any) -> None:
    """They say so, and the median is there."""
    p = PredictiveDistribution(family.to_event(1))
    for name in ("mean", "variance", "aleatoric_variance", "epistemic_variance"):
        with pytest.raises(NotImplementedError, match=r"has no finite .* here; use icdf\(0.5\) and interval"):
            getattr(p, name)
    frozen = stats.cauchy(A.numpy())
    median = p.icdf(0.5)
    torch.testing.assert_close(torch.from_numpy(frozen.cdf(median.numpy())).mean(0), torch.full_like(median, 0.5))
    low, high = p.interval(0.999)
    assert (low < -100).all()
    assert (high > 100).all()


def test_a_mean_without_a_variance() -> None:
    p = PredictiveDistribution(dist.StudentT(1.5, A, 1.0).to_event(1))
    torch.testing.assert_close(p.mean, A.mean(0))
    with pytest.raises(NotImplementedError, match="StudentT has no finite variance"):
        p.variance


class Nameless(dist.Normal):
    """A family without a cdf."""

    def cdf(self, value: Tensor) -> Tensor:
        raise NotImplementedError


def test_families_without_a_cdf() -> None:
    for components in (Nameless(A, 1.0).to_event(1), dist.VonMises(A, 1.0).to_event(1)):
        p = PredictiveDistribution(components)
        with pytest.raises(NotImplementedError, match="no cdf is known for"):
            p.cdf(torch.zeros(BATCH, EVENT))
        torch.testing.assert_close(p.mean, A.mean(0))
        assert p.log_prob(torch.zeros(BATCH, EVENT).double()).shape == (BATCH,)


def test_a_joint_normal_has_the_cdf_of_each_target() -> None:
    half = torch.randn(EVENT, EVENT, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    covariance = half @ half.T + torch.eye(EVENT).double()
    y = torch.zeros(BATCH, EVENT).double()
    alone = PredictiveDistribution(dist.Normal(A, covariance.diagonal().sqrt()).to_event(1))
    for family in (dist.MultivariateNormal(A, covariance), torch.distributions.MultivariateNormal(A, covariance)):
        p = PredictiveDistribution(family)
        torch.testing.assert_close(p.cdf(y), alone.cdf(y))
        torch.testing.assert_close(torch.stack(p.interval(0.9)), torch.stack(alone.interval(0.9)))


def test_scipy_is_asked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match="the cdf of this likelihood needs SciPy; pip install scipy"):
        mixture("student-t").cdf(torch.zeros(BATCH, EVENT))
    assert mixture("normal").cdf(torch.zeros(BATCH, EVENT)).shape == (BATCH, EVENT)


MAKERS: dict[str, Callable[[], Any]] = {
    "torch's": lambda: torch.distributions.Independent(torch.distributions.Normal(A, 1.0), 1),
    "pyro's": lambda: dist.Normal(A, 1.0).to_event(1),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_torchs_distributions_do_as_well(kind: str) -> None:
    p, own = PredictiveDistribution(MAKERS[kind]()), mixture("normal")
    assert (p.batch_shape, p.event_shape, p.event_dim, p.draws) == (own.batch_shape, own.event_shape, 1, DRAWS)
    y = torch.zeros(BATCH, EVENT, dtype=torch.double)
    each = dist.Normal(A, 1.0).to_event(1).log_prob(y)
    torch.testing.assert_close(p.log_prob(y), each.logsumexp(0) - math.log(DRAWS))
    torch.testing.assert_close(p.cdf(p.icdf(0.2)), torch.full_like(y, 0.2))


def test_shape_expansion_and_text() -> None:
    p = PredictiveDistribution(dist.Normal(torch.zeros(DRAWS, 1), 1.0))
    assert p.expand((4,)).batch_shape == (4,)
    assert p.expand((4,)).log_prob(torch.zeros(4)).shape == (4,)
    assert repr(mixture("normal")) == "PredictiveDistribution(Normal, draws: 5, batch: 3, event: (2,))"
    assert mixture("poisson").support.is_discrete
    for shape in ((), (3,), (2, 3, 4)):
        with pytest.raises(ValueError, match=r"the components need batch axes \[draw, batch\]"):
            PredictiveDistribution(dist.Normal(torch.zeros(shape), 1.0))


def test_log_prob_is_differentiable() -> None:
    loc = A.clone().requires_grad_()
    p = PredictiveDistribution(dist.Normal(loc, 1.0).to_event(1))
    p.log_prob(torch.zeros(BATCH, EVENT)).sum().backward()
    assert loc.grad is not None
    assert loc.grad.abs().min() > 0
