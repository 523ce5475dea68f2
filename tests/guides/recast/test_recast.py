"""RECaST: golden values, limits, recovery, inference that agrees, and what it refuses."""

import copy
import pickle

import pyro
import pytest
import torch
from conftest import Untouched
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO
from statistical import assert_mean
from torch import Tensor, nn

from bayesnn import predictive, to_arviz
from bayesnn.guides import RECaSTGuide, recast_nuts
from bayesnn.models import recast
from bayesnn.models.recast import CauchyEffect, NormalEffect, RECaST, StudentTEffect


def simulated(n: int, *, delta: float = 0.9, gamma: float = 0.3, sigma: float = 0.5) -> tuple[Tensor, Tensor]:
    """(f, y) from the model itself."""
    f = 2 * torch.randn(n, dtype=torch.double)
    beta = delta + gamma * torch.empty(n, dtype=torch.double).cauchy_()
    return f, beta * f + sigma * torch.randn(n, dtype=torch.double)


def at(delta: float, gamma: float, sigma: float | None = None) -> dict[str, Tensor]:
    values = {
        "delta": torch.tensor(delta, dtype=torch.double),
        "log_gamma": torch.tensor(gamma, dtype=torch.double).log(),
    }
    return values if sigma is None else {**values, "log_sigma": torch.tensor(sigma, dtype=torch.double).log()}


@pytest.mark.parametrize(
    ("y", "f", "values", "expected"),
    [
        (1.3, 0.7, (1.0, 0.5, 0.5), -1.1121911653),
        (5.0, -2.0, (0.9, 0.1, 0.5), -6.5723741291),
        (0.2, 3.0, (-0.4, 1.5, 0.3), -2.7438166312),
    ],
)
def test_continuous_golden(y: float, f: float, values: tuple[float, ...], expected: float) -> None:
    model = recast.continuous(None)
    exact = model.likelihood(model.outputs_at(at(*values), torch.tensor([f], dtype=torch.double)))
    assert exact.log_prob(torch.tensor([y], dtype=torch.double)).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("f", "values", "expected"),
    [
        (0.7, (1.0, 0.5), 0.6418967967),
        (-2.0, (0.9, 0.1), 0.1687845640),
        (3.0, (-0.4, 1.5), 0.4254975722),
        (1.0, (0.0, 1.0), 0.5),
        (100.0, (1.0, 1.0), 0.7499738201),
    ],
)
def test_binary_golden(f: float, values: tuple[float, ...], expected: float) -> None:
    model = recast.binary(None)
    p = model.likelihood(model.outputs_at(at(*values), torch.tensor([f], dtype=torch.double)))
    assert p.probs.item() == pytest.approx(expected, abs=1e-10)


def test_limits() -> None:
    """No random effect: N(delta f, sigma^2). No noise: Cauchy. A prediction of
    0: N(0, sigma^2).
    """
    f, y = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([0.3, 0.5, -1.0]).double()
    model = recast.continuous(None)
    nothing = model.likelihood(model.outputs_at(at(0.9, 1e-12, 0.5), f)).log_prob(y)
    torch.testing.assert_close(nothing, dist.Normal(0.9 * f, 0.5).log_prob(y), rtol=1e-8, atol=0)
    exact = model.likelihood(model.outputs_at(at(0.9, 0.3, 1e-9), f)).log_prob(y)[1:]
    torch.testing.assert_close(exact, dist.Cauchy(0.9 * f, 0.3 * f.abs() + 1e-300).log_prob(y)[1:])


def test_other_effects() -> None:
    """The Student-t effect lies between its limits, and normal effects add variances."""
    f, y = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, -1.0]).double()
    found = {}
    for name, effect in {
        "cauchy": CauchyEffect(), "t1": StudentTEffect(1.0), "t": StudentTEffect(1e6), "normal": NormalEffect()
    }.items():  # fmt: skip
        model = recast.continuous(None, effect=effect)
        found[name] = model.likelihood(model.outputs_at(at(0.9, 0.3, 0.5), f)).log_prob(y)
    torch.testing.assert_close(found["t1"], found["cauchy"], rtol=1e-7, atol=0)
    torch.testing.assert_close(found["t"], found["normal"], rtol=1e-5, atol=0)
    torch.testing.assert_close(found["normal"], dist.Normal(0.9 * f, (0.25 + 0.09 * f**2).sqrt()).log_prob(y))


def test_log_joint_is_pyros() -> None:
    """With the published priors, once each; and so is what NUTS and the guide climb."""
    f, y = simulated(30)
    for model, target, values in (
        (recast.continuous(None, name="m"), y, at(0.8, 0.2, 0.4)),
        (recast.binary(None, name="m"), (y > 0).double(), at(0.8, 0.2)),
    ):
        named = {f"m.{site}": value for site, value in values.items()}
        trace = pyro.poutine.trace(pyro.poutine.condition(model, data=named)).get_trace(f, target)
        trace.compute_log_prob()
        torch.testing.assert_close(model.log_joint(named, f, target), trace.log_prob_sum())
    prior = dist.Normal(1.0, 20.0).log_prob(torch.tensor(0.8)) + dist.Normal(0.0, 3.0).log_prob(values["log_gamma"])
    parts = model.log_joint(named, f, target) - trace.nodes["m.y"]["log_prob"].sum()
    torch.testing.assert_close(parts, prior.double(), check_dtype=False)


def test_parameters_are_recovered() -> None:
    """Of 20,000 examples of the model itself: within .01 to .03, as the specification found."""
    guide = RECaSTGuide(recast.continuous(None)).fit(*simulated(20_000), adapt=False)
    delta, log_gamma, log_sigma = guide.loc.tolist()
    error = (guide.scale_tril @ guide.scale_tril.mT).diagonal().sqrt().tolist()
    for value, truth, se in zip((delta, log_gamma, log_sigma), at(0.9, 0.3, 0.5).values(), error, strict=True):
        assert abs(value - truth) < 4.9 * se < 0.1  # a false alarm in a million


@pytest.mark.parametrize("noise", [True, False])
def test_all_ways_agree(*, noise: bool) -> None:
    """NUTS on the Pyro model, NUTS on densities, and corrected draws of the guide have the same
    mean and spread.
    """
    f, y = simulated(40)
    model = recast.continuous(None) if noise else recast.binary(None)
    y = y if noise else (y > 0).double()
    fast = recast_nuts(model, f, y, draws=250, warmup=150, chains=1, progress=False).get_samples()
    guide = RECaSTGuide(model).fit(f, y, generator=torch.Generator().manual_seed(0))
    corrected = guide.corrected(f, y, 2000, generator=torch.Generator().manual_seed(0))
    assert corrected.khat < 0.7
    for site in model.sites:
        spread = corrected.draws[site].std()
        # of 70 effective draws
        assert (fast[site].mean() - corrected.draws[site].mean()).abs() < 0.6 * spread
        assert 0.5 < fast[site].std() / spread < 1.8
    slow = MCMC(NUTS(model), num_samples=5, warmup_steps=5, disable_progbar=True)
    slow.run(f, y)
    assert set(slow.get_samples()) == set(model.sites)


def test_guide_moments_against_quadrature() -> None:
    """Two numbers on a grid: mean and covariance of the adapted guide are the posterior's."""
    f, y = simulated(40)
    y = (y > 0).double()
    model = recast.binary(None)
    guide = RECaSTGuide(model).fit(f, y, generator=torch.Generator().manual_seed(1))
    delta, log_gamma = torch.meshgrid(
        torch.linspace(-30, 90, 400).double(), torch.linspace(-12, 8, 80).double(), indexing="ij"
    )
    values = {"delta": delta.reshape(-1), "log_gamma": log_gamma.reshape(-1)}
    weight = model.log_joint(values, f, y).softmax(0)
    corrected = guide.corrected(f, y, 4000).draws
    values["ratio"] = values["delta"] / (1 + values["log_gamma"].exp())
    for site, i in (("ratio", 0), ("log_gamma", 1), ("delta", None)):
        mean = weight @ values[site]
        sd = (weight @ (values[site] - mean).square()).sqrt()
        if i is not None:  # the coordinates in which the guide is normal
            assert (guide.loc[i] - mean).abs() < 0.25 * sd
        if site in corrected:
            assert (corrected[site].mean() - mean).abs() < 0.15 * sd


def test_predictions_are_exact_mixtures() -> None:
    """The cdf and quantiles of y are those of the mixture over draws; the mean is refused."""
    f, y = simulated(50)
    model = recast.continuous(None)
    draws = RECaSTGuide(model).fit(f, y).corrected(f, y, 200).draws
    p = predictive(draws, f[:5], 200, model=model)
    lower, upper = p.icdf(0.1), p.icdf(0.9)
    torch.testing.assert_close(p.cdf(upper) - p.cdf(lower), torch.full((5,), 0.8).double(), rtol=0, atol=1e-6)
    with pytest.raises(NotImplementedError, match=r"no finite mean here; use icdf\(0.5\)"):
        _ = p.mean
    single = {site: value[:1] for site, value in draws.items()}
    torch.testing.assert_close(predictive(single, f[:5], 1, model=model).icdf(0.5), single["delta"] * f[:5])
    sampled = p.sample((4000,))
    assert_mean((sampled <= upper).double(), 0.9)


def test_corrected_draws_are_a_posterior() -> None:
    """They hold draws and know their model: predictions and ArviZ take them as they are, and
    refuse another model.
    """
    torch.manual_seed(0)
    f = torch.randn(30)
    y = (torch.rand(30) < f.sigmoid()).float()
    model = recast.binary(None)
    corrected = RECaSTGuide(model).fit(f, y).corrected(f, y, 50)
    assert corrected.model is model
    assert dict(corrected) == corrected.draws
    assert corrected.keys() == set(model.sites)
    probs = predictive(corrected, f).probs
    torch.testing.assert_close(probs, predictive(corrected.draws, f, model=model).probs, rtol=0, atol=0)
    likelihood = to_arviz(corrected, f, y)["log_likelihood"]["y"].values
    log_p = predictive(corrected, f).components.log_prob(y).T
    torch.testing.assert_close(torch.as_tensor(likelihood[0]).T, log_p, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(predictive(corrected, f, model=model.of_predictions()).probs, probs)
    with pytest.raises(ValueError, match="predictive: this CorrectedDraws is of another model: 'log_sigma' is random"):
        predictive(corrected, f, model=recast.continuous(None))


def source() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 1)).eval().requires_grad_(requires_grad=False)


def test_sources(untouched: Untouched) -> None:
    """A network, a function and an array of predictions are one model; links
    take probabilities to logits.
    """
    net, x = source(), torch.randn(20, 3)
    f = net(x).squeeze(1)
    y = (f + 0.1 * torch.randn(20)).double()
    values = at(1.0, 0.1, 0.2)
    with untouched(net):
        expected = recast.continuous(net).outputs(values, x)
    torch.testing.assert_close(recast.continuous(lambda x: net(x)).outputs(values, x), expected)
    torch.testing.assert_close(recast.continuous(None).outputs(values, f), expected)
    torch.testing.assert_close(recast.continuous(net).of_predictions().outputs(values, f), expected)
    linked = recast.binary(lambda x: net(x).sigmoid(), link=torch.logit).outputs(at(1.0, 0.1), x)
    torch.testing.assert_close(linked, expected[:, :2], rtol=1e-4, atol=1e-5)
    guide = RECaSTGuide(recast.continuous(net)).fit(x, y)
    assert predictive(guide, x, 10, chunk=7).icdf(0.5).shape == (20,)


def test_doors() -> None:
    """Predictive, ELBOs, ArviZ, LOO, pickles and states."""
    f, y = simulated(30)
    model = recast.continuous(None, name="r")
    guide = RECaSTGuide(model).fit(f, y)
    for parallel in (False, True):
        assert Predictive(model, guide=guide, num_samples=3, parallel=parallel)(f)["r.y"].shape[0] == 3
    assert torch.isfinite(torch.as_tensor(Trace_ELBO().loss(model, guide, f, y)))
    tree = to_arviz(guide, f, y, model=model, draws=50)
    assert tree["log_likelihood"]["r.y"].shape == (1, 50, 30)
    assert set(tree["posterior"].data_vars) >= {"r.delta", "r.log_gamma", "r.log_sigma"}
    for other in (copy.deepcopy(guide), pickle.loads(pickle.dumps(guide))):
        torch.testing.assert_close(other.loc, guide.loc)
    fresh = RECaSTGuide(recast.continuous(None, name="r"))
    fresh.load_state_dict(guide.state_dict())
    torch.testing.assert_close(fresh.scale_tril, guide.scale_tril)
    with pytest.raises(ValueError, match="another network, subset or model"):
        RECaSTGuide(recast.binary(None)).load_state_dict(guide.state_dict())


def test_bad_sources() -> None:
    net = source()
    with pytest.raises(ValueError, match="training mode"):
        recast.continuous(nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)))
    with pytest.raises(ValueError, match=r"'0.weight' has gradients on; call source.requires_grad_\(False\)"):
        recast.continuous(nn.Sequential(nn.Linear(3, 1)).eval())
    with pytest.raises(TypeError, match="give source=None and the predictions in the place of x"):
        recast.continuous(torch.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a network, a function or None"):
        recast.continuous("net")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"one prediction for each example.*\(4, 2\)"):
        recast.continuous(nn.Linear(3, 2).requires_grad_(requires_grad=False)).predictions(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="no prior of 'gamma'"):
        recast.binary(net, priors={"gamma": dist.HalfNormal(1.0)})
    with pytest.raises(ValueError, match="no prior of 'log_sigma'"):
        recast.binary(net, priors={"log_sigma": dist.Normal(0.0, 1.0)})


@pytest.mark.parametrize(
    ("f", "text"),
    [
        ([1.0, 2.0], "2 target examples are too few"),
        ([0.0, 0.0, 0.0], "predicts 0 on the link scale"),
        ([2.0, 2.0, 2.0], "predicts 2 for every example"),
        ([1.0, 2.0, float("inf")], "x is not finite at index"),
    ],
)
def test_bad_predictions(f: list[float], text: str) -> None:
    model: RECaST = recast.continuous(None)
    with pytest.raises(ValueError, match=text):
        model(torch.tensor(f), torch.zeros(len(f)))
    with pytest.raises(ValueError, match=text):
        RECaSTGuide(model).fit(torch.tensor(f), torch.zeros(len(f)))


def test_bad_targets() -> None:
    f = torch.linspace(-1, 1, 12)
    with pytest.raises(ValueError, match="outside the support"):
        recast.binary(None)(f, torch.full((12,), 0.5))
    with pytest.raises(ValueError, match=r"y\.float"):
        recast.binary(None)(f, torch.ones(12).long())
    with pytest.raises(ValueError, match="not finite at index"):
        RECaSTGuide(recast.continuous(None)).fit(f, f / 0)
    with pytest.raises(ValueError, match=r"shape \(12, 1\)"):
        RECaSTGuide(recast.continuous(None)).fit(f, f.unsqueeze(1))
    with pytest.warns(UserWarning, match=r"looks like probabilities.*link=torch.logit"):
        recast.binary(None)(f.abs(), (f > 0).float())
    with pytest.raises(ValueError, match="a probability of 0 or 1 has no logit"):
        recast.binary(lambda x: x, link=torch.logit).predictions(torch.tensor([0.0, 0.5, 0.3]))


def test_laplace_in_the_units_of_the_data() -> None:
    """Without a random effect to speak of, delta is a regression's slope: sd
    sigma / |f|, however large that is.
    """
    f, y = simulated(400, gamma=1e-6)
    # delta is 667 times as large, and so is its error: 8, where log scales have priors of 3
    f = 0.0015 * f
    wide = {"delta": dist.Normal(0.0, 1e4)}
    guide = RECaSTGuide(recast.continuous(None, priors=wide)).fit(f, y, adapt=False)
    slope = (f @ y) / (f @ f)
    error = (y - slope * f).std() / f.norm()
    assert guide.loc[0].item() == pytest.approx(slope.item(), rel=0.02)
    assert guide.scale_tril[0, 0].item() == pytest.approx(error.item(), rel=0.05)
    assert error > 4


def test_nuts_calls_the_source_once() -> None:
    f, y = simulated(20)
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x

    recast_nuts(recast.continuous(counted), f, y, draws=4, warmup=4, chains=1, progress=False)
    assert calls == [20]


def test_a_line_search_that_runs_away_is_survived() -> None:
    # All predictions have one sign, and with growing gamma the density flattens: one start's
    # L-BFGS leaps to nan.
    generator = torch.Generator().manual_seed(24)
    f = -(2 * torch.rand(20, generator=generator).double() + 1)
    y = (torch.rand(20, generator=generator) < 0.4).double()
    guide = RECaSTGuide(recast.binary(None)).fit(f, y, generator=generator)
    assert bool(guide.loc.isfinite().all())
    assert bool(guide.scale_tril.isfinite().all())
