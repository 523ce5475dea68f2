"""Leave-one-out densities and transforms: against brute force in closed form, ArviZ itself, and
RECaST's posteriors.
"""

import arviz
import numpy as np
import pytest
import torch
from pyro import distributions as dist
from statistical import bound
from torch import Tensor

from bayesnn.arviz import LeaveOneOut, leave_one_out, loo_pit, to_arviz
from bayesnn.guides import RECaSTGuide, recast_nuts
from bayesnn.models import recast
from bayesnn.predict import PredictiveDistribution, predictive

DATA, DRAWS, PRIOR = 25, 8000, 2.0
GENERATOR = torch.Generator().manual_seed(0)
Y = torch.randn(DATA, generator=GENERATOR, dtype=torch.double)
Y[0] = 2.8  # one far out


def posterior(y: Tensor) -> tuple[Tensor, float]:
    """Mean and standard deviation of mu: y_i ~ N(mu, 1), mu ~ N(0, PRIOR^2)."""
    precision = len(y) + PRIOR**-2
    return y.sum() / precision, precision**-0.5


def fitted() -> tuple[Tensor, PredictiveDistribution]:
    mean, sd = posterior(Y)
    mu = mean + sd * torch.randn(DRAWS, 1, generator=GENERATOR, dtype=torch.double)
    return mu, PredictiveDistribution(dist.Normal(mu.expand(DRAWS, DATA), 1.0))


def brute_force() -> dist.Normal:
    """p(y_i | the others), each from its own posterior."""
    kept = [posterior(torch.cat([Y[:i], Y[i + 1 :]])) for i in range(DATA)]
    sd = torch.tensor([(s**2 + 1) ** 0.5 for _, s in kept], dtype=torch.double)
    return dist.Normal(torch.stack([m for m, _ in kept]), sd)


def test_a_conjugate_model_left_out_one_by_one() -> None:
    """Within the standard errors of the weighted sums, for all examples at a
    false-alarm rate of 1e-6.
    """
    mu, p = fitted()
    exact, found, u = brute_force(), leave_one_out(p, Y), loo_pit(p, Y)
    assert (found.khat < 0.5).all()
    weights = found.log_weights.exp()
    torch.testing.assert_close(weights.sum(0), torch.ones(DATA).double())
    each = dist.Normal(mu, 1.0)
    error = (weights * (each.cdf(Y) - u)).square().sum(0).sqrt()
    assert error.max() < 0.002
    assert ((u - exact.cdf(Y)).abs() < bound(DATA) * error).all()
    density = found.log_density.exp()
    error = (weights * (each.log_prob(Y).exp() - density)).square().sum(0).sqrt()
    assert ((density - exact.log_prob(Y).exp()).abs() < bound(DATA) * error).all()
    naive = p.cdf(Y)  # with y_i among the data
    assert (naive - exact.cdf(Y)).square().mean() > 100 * (u - exact.cdf(Y)).square().mean()


@pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")
def test_the_elpd_is_arvizs() -> None:
    """And its k-hat and standard error, from `to_arviz`'s log likelihood."""
    torch.manual_seed(0)
    f = torch.linspace(-2, 2, 40, dtype=torch.double)
    y = 0.8 * f + 0.3 * torch.randn(40, dtype=torch.double)
    model = recast.continuous(None)
    draws = RECaSTGuide(model).fit(f, y).corrected(f, y, 300).draws
    tree = to_arviz(draws, f, y, model=model, predictive=False)
    assert tree["log_likelihood"]["y"].shape == (1, 300, 40)
    theirs = arviz.loo(tree, pointwise=True, reff=1.0)
    ours = leave_one_out(predictive(draws, f, 300, model=model), y)
    first = arviz.__version__.startswith("0.")
    elpd, se, each = (theirs.elpd_loo, theirs.se, theirs.loo_i) if first else (theirs.elpd, theirs.se, theirs.elpd_i)
    assert ours.elpd == pytest.approx(float(elpd), rel=1e-4)
    np.testing.assert_allclose(ours.log_density, np.asarray(each).ravel(), rtol=1e-3)
    np.testing.assert_allclose(ours.khat, np.asarray(theirs.pareto_k).ravel(), atol=1e-3)
    assert ours.standard_error == pytest.approx(float(se), rel=0.03)  # n or n - 1


@pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")
@pytest.mark.parametrize("noise", [True, False])
def test_recast_by_all_roads(*, noise: bool) -> None:
    """`az.loo` runs on corrected draws and on Markov chains, and both roads agree on elpd."""
    torch.manual_seed(1)
    f = torch.linspace(-2, 2, 30, dtype=torch.double)
    y = 0.8 * f + 0.3 * torch.randn(30, dtype=torch.double)
    model, y = (recast.continuous(None), y) if noise else (recast.binary(None), (y > 0.1).double())
    run = recast_nuts(model, f, y, draws=30, warmup=30, chains=1, progress=False)
    corrected = RECaSTGuide(model).fit(f, y).corrected(f, y, 100)
    elpds = []
    for held in (run, corrected.draws):
        result = arviz.loo(to_arviz(held, f, y, model=model, predictive=False))
        elpds.append(float(result.elpd_loo if arviz.__version__.startswith("0.") else result.elpd))
    p = predictive(corrected.draws, f, 100, model=model)
    assert elpds[0] == pytest.approx(elpds[1], abs=3.0)
    assert leave_one_out(p, y).elpd == pytest.approx(elpds[1], abs=0.05)


def test_recast_fitted_without_an_example() -> None:
    """The most surprising of 30: what is found by weights is near what a second fit finds."""
    torch.manual_seed(1)
    f = torch.linspace(-2, 2, 30, dtype=torch.double)
    y = 0.8 * f + 0.3 * torch.randn(30, dtype=torch.double)
    model = recast.continuous(None)

    def predicted(f: Tensor, y: Tensor, at: Tensor) -> PredictiveDistribution:
        generator = torch.Generator().manual_seed(0)
        guide = RECaSTGuide(model).fit(f, y, generator=generator)
        return predictive(guide.corrected(f, y, 2000, generator=generator).draws, at, 2000, model=model)

    p = predicted(f, y, f)
    u = loo_pit(p, y)
    i = int((u - 0.5).abs().argmax())
    kept = torch.arange(30) != i
    again = float(predicted(f[kept], y[kept], f[i : i + 1]).cdf(y[i : i + 1]))
    assert float(u[i]) == pytest.approx(again, abs=0.01)
    assert abs(float(p.cdf(y)[i]) - again) > 2 * abs(float(u[i]) - again)


def test_events_and_equal_draws() -> None:
    """Two targets share their example's weights; draws that are all the same weigh the same."""
    mu = torch.randn(60, 1, 1, generator=GENERATOR).double().expand(60, 4, 2)
    p, y = PredictiveDistribution(dist.Normal(mu, 1.0).to_event(1)), torch.zeros(4, 2).double()
    found = leave_one_out(p, y)
    assert found.log_density.shape == (4,)
    u = loo_pit(p, y)
    expected = (found.log_weights.exp().unsqueeze(-1) * dist.Normal(mu, 1.0).cdf(y)).sum(0)
    torch.testing.assert_close(u, expected)
    same = PredictiveDistribution(dist.Normal(torch.zeros(40, 3), 1.0))
    found = leave_one_out(same, torch.ones(3))
    assert isinstance(found, LeaveOneOut)
    assert (found.khat == -torch.inf).all()
    torch.testing.assert_close(found.log_density, dist.Normal(0.0, 1.0).log_prob(torch.ones(3)).double())
    torch.testing.assert_close(loo_pit(same, torch.ones(3)), same.cdf(torch.ones(3)))


def test_what_is_refused() -> None:
    p = PredictiveDistribution(dist.Exponential(torch.ones(40, 3), validate_args=False))
    with pytest.raises(ValueError, match=r"y has shape \(2,\), the predictions \(3,\)"):
        leave_one_out(p, torch.ones(2))
    none = PredictiveDistribution(dist.Uniform(torch.zeros(40, 3), 1.0, validate_args=False))
    with pytest.raises(ValueError, match=r"y\[1\] has no finite density"):
        leave_one_out(none, torch.tensor([0.5, 2.0, 0.5]))
    for components in (dist.Poisson(torch.ones(40, 3)), dist.Bernoulli(torch.full((40, 3), 0.5))):
        with pytest.raises(NotImplementedError, match="labels and counts is not uniform"):
            loo_pit(PredictiveDistribution(components), torch.ones(3))
