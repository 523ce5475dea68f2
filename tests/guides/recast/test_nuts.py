"""NUTS on RECaST's numbers: its gradients, its draws against a grid, its seeds,
and what it gives.
"""

import math
import warnings

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import MCMC
from scipy import special
from statistical import bound
from torch import Tensor

from bayesnn import predictive, to_arviz
from bayesnn.distributions import Voigt
from bayesnn.distributions.voigt.slopes import log_voigt_function
from bayesnn.guides import recast_nuts
from bayesnn.guides.recast.guide import Density, in_numbers
from bayesnn.guides.recast.slopes import AutogradSlopes, LogisticSlopes, VoigtSlopes, slopes_of
from bayesnn.guides.recast.small_nuts import SmallNUTS
from bayesnn.models import recast
from bayesnn.models.recast import NormalEffect, RECaST


def simulated(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(f, y) from the model itself, the first f zero."""
    with pyro.poutine.block(), torch.random.fork_rng():
        torch.manual_seed(seed)
        f = 2 * torch.randn(n, dtype=torch.double)
        f[0] = 0
        beta = 0.9 + 0.3 * torch.empty_like(f).cauchy_()
        return f, beta * f + 0.5 * torch.randn_like(f)


def labels(y: Tensor) -> Tensor:
    return (y > 0).double()


def effective(kernel_draws: Tensor) -> float:
    """Of draws [chain, draw]."""
    return float(pyro.ops.stats.effective_sample_size(kernel_draws, 0, 1))


def test_voigt_function_and_slopes() -> None:
    """The real part of SciPy's Faddeeva function, and w' = -2 z
    w + 2i / sqrt(pi) where that does not cancel.
    """
    x, y = (np.array(one) for one in zip(*[(a, b) for a in POINTS for b in [0.0, *POINTS]], strict=True))
    value, in_x, in_y = log_voigt_function(x, y)
    z = x + 1j * y
    w = special.wofz(z)
    seen = w.real > 1e-280
    np.testing.assert_allclose(value[seen], np.log(w.real[seen]), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(value[~seen], -(x[~seen] ** 2), rtol=1e-13)
    near = seen & (abs(z) < 30)
    z, w, in_x, in_y = z[near], w[near], in_x[near], in_y[near]
    slope, size = (-2 * z * w + 2j / math.sqrt(math.pi)) / w.real, 1e-14 * (1 + abs(z) ** 2) * abs(w) / w.real
    assert (abs(in_x - slope.real) <= 1e-13 * abs(slope.real) + size).all()
    bounded = np.minimum(-slope.imag, 1e30)
    assert (abs(in_y - bounded) <= 1e-13 * abs(bounded) + size).all()


POINTS = [1e-9, 0.1, 0.24, 0.26, 1.3, 4.7, 6.2, 6.3, 9.0, 27.0, 40.0, 1e3, 1e6]


def test_voigt_function_and_slopes_far_out() -> None:
    """A Cauchy density's slopes, relative to their size; the normal distribution's; and bounds
    where they overflow.
    """
    x, y = np.array([1e5, 3e4, -1e5, 10.0]), np.array([1.0, 1e5, 2e5, 1e4])
    _, in_x, in_y = log_voigt_function(x, y)
    square = x**2 + y**2
    np.testing.assert_allclose(in_x, -2 * x / square, rtol=1e-7)
    np.testing.assert_allclose(in_y, 1 / y - 2 * y / square, rtol=1e-7)
    value, in_x, in_y = log_voigt_function(np.array([60.0, np.inf]), np.zeros(2))
    assert (value[0], in_x[0], in_y[0]) == (-3600, -120, 1e30)
    assert np.isfinite(value[1])


@pytest.mark.parametrize("u", [(0.9, -1.2, -0.7), (-3.0, -20.0, 1.0), (1.0, 3.0, -9.0), (0.0, 9.0, 9.0)])
@pytest.mark.parametrize("delta", [dist.Normal(1.0, 20.0), dist.StudentT(4.0, 0.0, 2.0)])
def test_slopes_are_autograds(u: tuple[float, ...], delta: dist.TorchDistribution) -> None:
    """In closed form they are those of the density as it stands, and so is its value."""
    f, y = simulated(40)
    for model, target, kind in (
        (recast.continuous(None, priors={"delta": delta}), y, VoigtSlopes),
        (recast.binary(None, priors={"delta": delta}), labels(y), LogisticSlopes),
    ):
        density, at = Density(model, f, target), np.array(u[: len(model.priors)])
        closed = slopes_of(density)
        assert type(closed) is kind
        (value, slopes), (expected, exact) = closed(at), AutogradSlopes(density)(at)
        assert value == pytest.approx(expected, rel=1e-11)
        np.testing.assert_allclose(slopes, exact, rtol=1e-7, atol=1e-9 * (1 + abs(exact).max()))


def test_slopes_are_those_of_differences() -> None:
    """Central differences of the closed value, and of one that autograd differentiates."""
    f, y = simulated(25)
    for model, target in (
        (recast.continuous(None), y),
        (recast.binary(None), labels(y)),
        (recast.continuous(None, effect=NormalEffect()), y),
    ):
        slopes = slopes_of(Density(model, f, target))
        at = np.array([0.7, -1.1, -0.4])[: len(model.priors)]
        found = slopes(at)[1]
        for i, step in enumerate(1e-5 * np.eye(len(at))):
            assert found[i] == pytest.approx((slopes(at + step)[0] - slopes(at - step)[0]) / 2e-5, rel=1e-6, abs=1e-6)


def test_prior_slopes_need_a_number_each() -> None:
    """The Voigt log likelihood itself, added up by hand."""
    f, y = simulated(10)
    value, _ = slopes_of(Density(recast.continuous(None), f, y))(np.array([0.9, -1.0, -0.5]))
    likelihood = Voigt(0.9 * f, math.exp(-0.5), math.exp(-1.0) * f.abs()).log_prob(y).sum()
    priors = [(1.0, 20.0, 0.9), (0.0, 3.0, -1.0), (0.0, 3.0, -0.5)]
    prior = sum(dist.Normal(loc, scale).log_prob(torch.tensor(at)) for loc, scale, at in priors)
    # priors in single precision
    assert value == pytest.approx(float(likelihood + prior), abs=1e-5)


def on_a_grid(model: RECaST, f: Tensor, y: Tensor, *axes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Posterior weights and values on a grid of coordinates u, mass beyond it negligible."""
    u = torch.cartesian_prod(*axes)
    weights = Density(model, f, y)(u).softmax(0)
    inside = torch.stack([(u[:, i] != axis[0]) & (u[:, i] != axis[-1]) for i, axis in enumerate(axes)]).all(0)
    assert weights[~inside].sum() < 1e-4
    return weights, in_numbers(model, u)


def line(low: float, high: float, count: int) -> Tensor:
    return torch.linspace(low, high, count, dtype=torch.double)


def assert_moments(run: MCMC, weights: Tensor, values: dict[str, Tensor]) -> None:
    """Smooth functions of each number have the grid's means, within standard errors of as many
    effective draws.

    Six of them: 4.9 would be a false alarm in 10^6 for one normal mean, and the effective numbers
    are estimates.
    """
    draws = run.get_samples(group_by_chain=True)
    assert bound() < 5
    for site, value in values.items():
        centre = weights @ value
        spread = (weights @ (value - centre) ** 2).sqrt()
        for function in (torch.asinh, torch.tanh, lambda z: 1 / (1 + z**2), lambda z: torch.tanh(2 * z + 1)):
            found, exact = function((draws[site] - centre) / spread), function((value - centre) / spread)
            mean = weights @ exact
            error = 6 * (weights @ (exact - mean) ** 2).sqrt() / math.sqrt(effective(found))
            assert (found.mean() - mean).abs() < error < 0.4, (site, found.mean(), mean, error)


def test_numbers_have_the_grids_posterior() -> None:
    pyro.set_rng_seed(0)
    f, y = simulated(40)
    model = recast.continuous(None)
    run = recast_nuts(model, f, y, draws=500, warmup=150, chains=2, progress=False)
    grid = on_a_grid(model, f, y, line(0.2, 1.6, 36), line(-9, 1.5, 40), line(-6, 1.2, 40))
    assert_moments(run, *grid)


def test_labels_have_the_grids_posterior() -> None:
    pyro.set_rng_seed(1)
    f, y = simulated(40)
    model = recast.binary(None)
    run = recast_nuts(model, f, labels(y), draws=500, warmup=150, chains=2, progress=False)
    assert_moments(run, *on_a_grid(model, f, labels(y), line(-2, 40, 240), line(-14, 12, 50)))


def correlated_normal() -> SmallNUTS:
    """The kernel on a normal distribution, in coordinates that are not quite its own."""
    root = torch.tensor([[2.0, 0.0], [1.5, 0.3]], dtype=torch.double)
    precision = torch.linalg.inv(root @ root.mT).numpy()

    def slopes(u: np.ndarray) -> tuple[float, np.ndarray]:
        return float(-u @ precision @ u / 2), -precision @ u

    return SmallNUTS(slopes, torch.full((2,), 0.5).double(), 1.3 * root, lambda u: {"u": u})


def test_kernel_on_a_normal_distribution() -> None:
    """Mean 0 and covariance [[4, 3], [3, 2.34]], within six standard errors; a step that accepts
    what was asked for.
    """
    pyro.set_rng_seed(2)
    run = MCMC(correlated_normal(), num_samples=2000, warmup_steps=300, disable_progbar=True)
    run.run()
    u = run.get_samples()["u"]
    exact = {(0, 0): 4.0, (0, 1): 3.0, (1, 1): 2.34}
    for i in range(2):
        count = effective(u[:, i].unsqueeze(0))
        assert count > 500
        assert abs(float(u[:, i].mean())) < 6 * math.sqrt(exact[i, i] / count)
    for (i, j), value in exact.items():
        product = u[:, i] * u[:, j]
        assert abs(float(product.mean()) - value) < 6 * float(product.std()) / math.sqrt(
            effective(product.unsqueeze(0))
        )
    found = run.diagnostics()
    assert 0.7 < found["acceptance rate"]["chain 0"] < 0.95
    assert found["divergences"] == {"chain 0": []}
    assert 2300 <= found["leaps"]["chain 0"] < 20 * 2300


def test_kernel_rejects_where_the_density_is_not_finite() -> None:
    """A half normal by NaN and minus infinity: no draw below zero, trajectories
    marked as divergent.
    """

    def slopes(u: np.ndarray) -> tuple[float, np.ndarray]:
        return (float(-u @ u / 2), -u) if u[0] > 0 else (math.nan if u[0] > -0.5 else -math.inf, np.full(1, np.nan))

    pyro.set_rng_seed(3)
    kernel = SmallNUTS(slopes, torch.ones(1).double(), 0.1 * torch.eye(1).double(), lambda u: {"u": u})
    run = MCMC(kernel, num_samples=300, warmup_steps=100, disable_progbar=True)
    run.run()
    u = run.get_samples()["u"]
    assert (u > 0).all()
    assert len(run.diagnostics()["divergences"]["chain 0"]) > 0
    with pytest.raises(NotImplementedError, match="a draw of its own"):
        kernel.initial_params = {"u": torch.zeros(1)}


@pytest.mark.parametrize("chains", [1, 3])
def test_seeds_and_shapes(chains: int) -> None:
    """Pyro's seed makes the same run again; another one does not; nothing is warned of."""
    f, y = simulated(20)
    model = recast.continuous(None, name="r")
    found = []
    for seed in (0, 0, 1):
        pyro.set_rng_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run = recast_nuts(model, f, y, draws=8, warmup=8, chains=chains, progress=False)
        draws = run.get_samples(group_by_chain=True)
        assert {site: tuple(value.shape) for site, value in draws.items()} == dict.fromkeys(model.sites, (chains, 8))
        assert all(value.dtype == torch.double for value in draws.values())
        found.append(draws["r.log_gamma"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    if chains > 1:
        assert not torch.equal(found[0][0], found[0][1])


def test_doors(capsys: pytest.CaptureFixture[str]) -> None:
    """Predictions, ArviZ and Pyro's summary take the run; another model does not."""
    pyro.set_rng_seed(0)
    f, y = simulated(20)
    model = recast.continuous(None)
    run = recast_nuts(model, f, y, draws=20, warmup=20, chains=2, progress=False)
    assert predictive(run, f[:3], 10, model=model).icdf(0.5).shape == (3,)
    tree = to_arviz(run, f, y, model=model)
    assert tree["log_likelihood"]["y"].shape == (2, 20, 20)
    assert tree["posterior"].attrs["method"] == "SmallNUTS"
    run.summary()
    assert "log_gamma" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is of another model"):
        predictive(run, f[:3], 10, model=recast.binary(None))
