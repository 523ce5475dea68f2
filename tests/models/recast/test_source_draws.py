"""RECaST with an uncertain source: brute force, limits, quadrature, every way of inference."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, predictive, priors, subset, to_arviz
from bayesnn.guides import RECaSTGuide, recast_nuts
from bayesnn.models import recast
from bayesnn.models.recast import SourceDraws
from bayesnn.transfer import recast_summary

TIGHT = {"delta": dist.Normal(1.0, 0.5), "log_gamma": dist.Normal(-2.0, 1.0), "log_sigma": dist.Normal(-1.0, 0.5)}


def slopes(*values: float) -> SourceDraws:
    """f_s(x) = slope_s x + s / 10: draws that are not proportional."""
    shifts = torch.arange(len(values)).double() / 10
    return SourceDraws(lambda x: torch.tensor(values).double().unsqueeze(1) * x + shifts.unsqueeze(1), len(values))


def data(n: int = 15) -> tuple[Tensor, Tensor]:
    x = torch.linspace(-2, 2, n).double()
    return x, x + 0.4 * torch.randn(n).double()


def test_two_draws_by_brute_force() -> None:
    """The joint posterior of number and index on a grid, from the single
    models: weights and log joint.
    """
    x, y = data()
    source = slopes(0.9, 1.1)
    model = recast.continuous(source, priors=TIGHT)
    grids = [torch.linspace(a, b, 11).double() for a, b in ((0.3, 1.7), (-5.0, 1.0), (-2.5, 0.5))]
    values = dict(zip(model.number_sites, torch.cartesian_prod(*grids).T, strict=True))
    singles = []
    for s in range(2):
        single = recast.continuous(None, priors=TIGHT)
        singles.append(single.log_joint(values, source(x)[s], y) - math.log(2))
    joint = torch.stack(singles, -1)  # [grid, draw]
    f = model.predictions(x)
    torch.testing.assert_close(model.log_joint(values, f, y), joint.logsumexp(-1))
    torch.testing.assert_close(recast.source_weights(model, values, f, y), joint.softmax(-1))
    found = RECaSTGuide(model).fit(x, y).corrected(x, y, 2000)
    posterior = joint.reshape(-1).softmax(0).reshape(joint.shape)
    share = posterior.sum(0)
    assert 0.02 < share[0] < 0.98  # both count
    # 2,000 draws: se 0.011
    assert abs(float((found.draws["source"] == 1).double().mean()) - float(share[1])) < 0.06
    assert found.effective_sources == pytest.approx(float(1 / share.square().sum()), rel=0.1)
    slope = (posterior * values["delta"].unsqueeze(-1)).sum(0) / share  # E[delta | source]
    for s in range(2):
        drawn = found.draws["delta"][found.draws["source"] == s]
        assert abs(float(drawn.mean() - slope[s])) < 5 * float(drawn.std()) / math.sqrt(len(drawn) / 2)


def test_equal_draws_are_a_plain_source() -> None:
    x, y = data()
    plain = recast.continuous(None, priors=TIGHT)
    same = recast.continuous(SourceDraws(lambda x: torch.stack([x, x, x]), 3), priors=TIGHT)
    values = {site: torch.tensor([0.9, -1.0]).double() for site in plain.sites}
    torch.testing.assert_close(same.log_joint(values, same.predictions(x), y), plain.log_joint(values, x, y))
    weights = recast.source_weights(same, values, same.predictions(x), y)
    torch.testing.assert_close(weights, torch.full((2, 3), 1 / 3).double())
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    fits = [
        RECaSTGuide(model).fit(x, y, generator=g).loc
        for model, g in zip((plain, same), generators, strict=True)
    ]  # fmt: skip
    torch.testing.assert_close(*fits, rtol=1e-6, atol=1e-8)


def test_linear_source_and_target_by_quadrature() -> None:
    """A Bayesian source f = w x with draws of w ~ N(1, 0.3^2): the mean of y at x = 1 is that of
    the integral over w.

    With a small effect y = delta w x + noise knows delta w alone. Were the source certain, w = 1,
    delta would have its data's slope and that slope's error; the uncertain w makes it wider, by
    the factor that quadrature gives.
    """
    x = torch.linspace(-2, 2, 12).double()
    y = 1.5 * x + 0.2 * torch.sin(9 * x)
    known = {
        "delta": dist.Normal(1.0, 0.3), "log_gamma": dist.Normal(-12.0, 0.01), "log_sigma": dist.Normal(-1.5, 0.01)
    }  # fmt: skip
    w = 1 + 0.3 * torch.randn(400).double()
    model = recast.continuous(SourceDraws(lambda x: w.unsqueeze(1) * x, 400), priors=known)
    delta = torch.linspace(-0.5, 3, 701).double()
    values = {
        "delta": delta,
        "log_gamma": torch.full_like(delta, -12.0),
        "log_sigma": torch.full_like(delta, -1.5),
    }
    parts = [{site: value[i : i + 100] for site, value in values.items()} for i in range(0, 701, 100)]
    f = model.predictions(x)
    found = torch.cat([model.log_joint(part, f, y) for part in parts]).softmax(0)
    # by hand: delta, w normal; y | delta w normal with slope b and precision a
    a = x.square().sum() / math.exp(-3.0)
    b = (x @ y) / x.square().sum()
    nodes = torch.linspace(-1, 3, 4001).double()
    log_w = -(((nodes - 1) / 0.3) ** 2) / 2
    log_p = -(((delta - 1) / 0.3) ** 2).unsqueeze(1) / 2 + log_w - a * (delta.unsqueeze(1) * nodes - b) ** 2 / 2
    exact = log_p.logsumexp(1).softmax(0)
    mean, expected = (found * delta).sum(), (exact * delta).sum()
    spread, width = ((found * (delta - m) ** 2).sum().sqrt() for m in (mean, expected))
    assert abs(float(mean - expected)) < 0.05  # of 400 draws of w: a standard error of 0.02
    assert float(spread / width) == pytest.approx(1.0, abs=0.02)
    sd = (exact * (delta - expected) ** 2).sum().sqrt()
    assert float(spread / sd) == pytest.approx(1.0, abs=0.2)
    certain = float(1 / (a + 1 / 0.09).sqrt())
    assert sd > 2 * certain  # what ignoring the source's uncertainty would report


def test_every_way_of_inference() -> None:
    """Pyro's own NUTS and TraceEnum_ELBO sum over the index; ours draw it; predictions use each
    draw's own source.
    """
    x, y = data()
    source = slopes(0.9, 1.0, 1.2)
    model = recast.continuous(source, priors=TIGHT, name="m")
    values = {f"m.{n}": torch.tensor(v).double() for n, v in (("delta", 0.9), ("log_gamma", -2.0), ("log_sigma", -1.0))}
    given = pyro.poutine.condition(model, data=values)
    enumerated = -torch.as_tensor(TraceEnum_ELBO(max_plate_nesting=1).loss(given, lambda *_: None, x, y))
    torch.testing.assert_close(enumerated.double(), model.log_joint(values, model.predictions(x), y))
    slow = MCMC(NUTS(model), num_samples=4, warmup_steps=4, disable_progbar=True)
    slow.run(x, y)
    assert set(slow.get_samples()) == set(model.number_sites)
    chains = recast_nuts(model, x, y, draws=60, warmup=40, chains=1, progress=False)
    assert chains.get_samples(group_by_chain=True)["m.source"].shape == (1, 60)
    guide = RECaSTGuide(model).fit(x, y)
    exact = guide.corrected(x, y, 1000)
    share = torch.bincount(chains.get_samples()["m.source"], minlength=3) / 60
    assert (share - torch.bincount(exact.draws["m.source"], minlength=3) / 1000).abs().max() < 0.35
    for posterior in (chains, guide, exact.draws):
        p = predictive(posterior, x[:4], 20, model=model)
        assert p.icdf(0.5).shape == (4,)
    one = {site: value[7:8] for site, value in exact.draws.items()}
    median = predictive(one, x, 1, model=model).icdf(0.5)
    torch.testing.assert_close(median, one["m.delta"] * source(x)[int(one["m.source"])])
    known = predictive(one, model.predictions(x), 1, model=model.of_predictions()).icdf(0.5)
    torch.testing.assert_close(known, median)
    for parallel in (False, True):
        assert Predictive(model, guide=guide, num_samples=3, parallel=parallel)(x)["m.y"].shape[0] == 3
    assert torch.isfinite(torch.as_tensor(Trace_ELBO().loss(model, guide, x, y)))
    assert to_arviz(exact.draws, x, y, model=model, draws=20)["posterior"]["m.source"].shape == (1, 20)
    assert to_arviz(guide, x, y, model=model, draws=20)["log_likelihood"]["m.y"].shape == (1, 20, 15)
    fresh = RECaSTGuide(model)
    fresh.load_state_dict(guide.state_dict())
    torch.testing.assert_close(fresh.source_probs, guide.source_probs)
    assert "m.source" not in str(recast_summary(exact, x, y, model=model).posterior.rows)


def test_labels() -> None:
    """Binary and categorical responses: the same sum over draws."""
    x = torch.randn(12).double()
    f = torch.stack([x, 2 * x])
    y = torch.arange(12) % 2
    values = {"delta": torch.tensor(0.9).double(), "log_gamma": torch.tensor(-1.0).double()}
    plain = recast.binary(None)
    expected = torch.stack([plain.log_joint(values, one, y) for one in f]).logsumexp(0) - math.log(2)
    uncertain = recast.binary(SourceDraws(lambda x: torch.stack([x, 2 * x]), 2))
    torch.testing.assert_close(uncertain.log_joint(values, uncertain.predictions(x), y), expected)
    both = torch.stack([-f / 2, f / 2], -1)
    several = recast.categorical(SourceDraws.given(2))
    predictions = several.predictions(both.movedim(0, 1))
    torch.testing.assert_close(several.log_joint(values, predictions, y), expected, rtol=0, atol=1e-8)


def test_a_bayesian_network_as_source() -> None:
    net = nn.Linear(2, 1).eval()
    bnn = BNN(net, subset.everything(net), priors.normal(), likelihoods.normal(1.0))
    draws = {site: torch.randn(5, *shape) for site, shape in bnn.sites.items()}
    x = torch.randn(8, 2)
    f = recast.continuous(SourceDraws.of_model(bnn, draws)).predictions(x)
    assert f.shape == (8, 5)
    expected = (x @ draws["weight"][3].T + draws["bias"][3]).squeeze(1).double()
    torch.testing.assert_close(f[:, 3], expected)
    with pytest.raises(ValueError, match="no draws of 'bias'"):
        SourceDraws.of_model(bnn, {"weight": draws["weight"]})


def test_refusals() -> None:
    x, y = data()
    with pytest.raises(ValueError, match="give two or more, or the source itself"):
        SourceDraws(lambda x: x, 1)
    with pytest.raises(ValueError, match=r"must give 3 draws.*\(2, 15\)"):
        recast.continuous(SourceDraws(lambda x: torch.stack([x, x]), 3))(x, y)
    with pytest.raises(ValueError, match="prediction of example 4"):
        recast.continuous(SourceDraws(lambda x: torch.stack([x, 1 / (x - x[4])]), 2))(x, y)
    with pytest.raises(ValueError, match="predicts 0 on the link scale"):
        recast.continuous(SourceDraws(lambda x: torch.stack([x, 0 * x]), 2))(x, y)
    model = recast.continuous(slopes(1.0, 2.0))
    with pytest.raises(ValueError, match="no value of 'source'"):
        model.outputs({site: torch.tensor(1.0) for site in model.number_sites}, x)
    many = slopes(1.0, *[20.0 + s for s in range(11)])
    model = recast.continuous(many, priors={**TIGHT, "delta": dist.Normal(1.0, 0.05)})
    with pytest.warns(UserWarning, match=r"leave 1\.\d effective draws of the source's 12"):
        RECaSTGuide(model).fit(x, y).corrected(x, y, 100)
