"""The marginal likelihood of a Laplace approximation, and the prior that maximises it."""

from typing import Any

import pyro
import pytest
import torch
from laplace_problems import TARGETS, golden, log_joint, mode
from nets import mlp
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import Diagonal, Full, Kronecker, Laplace
from bayesnn.guides.laplace import evidence

X = torch.randn(7, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
PRIORS = {
    "normal": lambda net: priors.normal(0.7),
    "fan-in": lambda net: priors.fan_in(net, gain=0.8),
    "around": lambda net: priors.around({name: p + 0.3 for name, p in net.named_parameters()}, 0.4),
}


def classification(prior: str = "normal") -> tuple[BNN, Tensor]:
    net = mlp(outputs=3).double()
    return BNN(net, subset.everything(net), PRIORS[prior](net), likelihoods.categorical), TARGETS["categorical"]()


@pytest.mark.parametrize("prior", PRIORS)
def test_a_factor_equals_a_new_fit_under_the_rescaled_prior(prior: str) -> None:
    model, y = classification(prior)
    guide = Laplace(model).fit([(X, y)])
    factors = torch.tensor([[1e-3, 0.5, 1.0], [2.0, 10.0, 1e4]])
    found = guide.log_evidence(factors)
    assert found.shape == (2, 3)
    for factor, one in zip(factors.flatten().tolist(), found.flatten(), strict=True):
        anew = Laplace(model.with_prior(priors.rescaled(model.prior, factor**-0.5))).fit([(X, y)])
        torch.testing.assert_close(one, anew.log_evidence(), rtol=1e-8, atol=0)
        torch.testing.assert_close(one, guide.log_evidence(factor), rtol=1e-6, atol=0)


def test_the_evidence_of_a_conjugate_model_is_exact_at_every_prior_of_its_own_mode() -> None:
    for precision in (0.01, 0.5, 2.0, 30.0):
        model, x, y = golden(precision)
        guide = Laplace(model, mode(model, x, y)).fit([(x, y)])
        joint = dist.MultivariateNormal(torch.zeros(3).double(), x @ x.T / precision + 0.25 * torch.eye(3))
        torch.testing.assert_close(guide.log_evidence(), joint.log_prob(y.squeeze(1)))


@pytest.mark.parametrize("prior", PRIORS)
def test_the_maximum_is_one(prior: str) -> None:
    model, y = classification(prior)
    guide = Laplace(model).fit([(X, y)])
    before = guide.log_evidence().item()
    best = guide.maximise_evidence()
    step = 1e-4
    below, at, above = best.log_evidence(torch.tensor([-step, 0.0, step], dtype=torch.double).exp()).tolist()
    assert abs(above - below) / (2 * step) < 1e-6
    assert below < at > above
    assert at > before
    grid = guide.log_evidence(torch.linspace(-20, 20, 2001, dtype=torch.double).exp())
    assert at >= grid.max().item()
    assert grid.max().item() > at - 1e-2
    again = best.maximise_evidence()
    torch.testing.assert_close(again.fitted.prior_precision, best.fitted.prior_precision, rtol=1e-9, atol=0)
    assert guide.log_evidence().item() == before  # the guide itself stays


@pytest.mark.parametrize("prior", PRIORS)
def test_the_new_guide_belongs_to_its_model(prior: str) -> None:
    """Its model has the prior that its precision contains: a new fit of that
    model is the same posterior.
    """
    model, y = classification(prior)
    guide = Laplace(model).fit([(X, y)])
    best = guide.maximise_evidence()
    assert guide.model is model
    assert best.model is not model
    assert best.model.net is model.net
    assert best.model.likelihood is model.likelihood
    anew = Laplace(best.model).fit([(X, y)])
    torch.testing.assert_close(anew.covariance, best.covariance)
    torch.testing.assert_close(anew.log_evidence(), best.log_evidence())
    values = model.values()
    with torch.no_grad():
        density = dist.MultivariateNormal(best.loc, scale_tril=best.scale_tril).log_prob(best.loc)
        # For a normal approximation the evidence is the log joint less the log density at the
        # mode.
        torch.testing.assert_close(log_joint(best.model, values, X, y) - density, best.log_evidence())
    pyro.set_rng_seed(0)
    draws = best()
    assert draws.keys() == values.keys()


def test_no_maximum() -> None:
    net = mlp(outputs=3)
    model = BNN(net, subset.last_layer(net), priors.around(net, 0.5), likelihoods.categorical)
    data = [(torch.randn(7, 3), TARGETS["categorical"]())]
    with pytest.raises(ValueError, match=r"grows without end in the prior's precision.*lie at the prior's mean"):
        Laplace(model).fit(data).maximise_evidence()
    dead = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        dead[0].bias -= 100.0
    model = BNN(dead, subset.named(dead, "0"), priors.normal(1.0), likelihoods.categorical)
    with pytest.raises(ValueError, match=r"falls in the prior's precision from 0 on.*the data say nothing"):
        Laplace(model).fit(data).maximise_evidence()


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), torch.tensor([1.0, 0.0])])
def test_precisions_are_positive(factor: float | Tensor) -> None:
    model, x, y = golden()
    with pytest.raises(ValueError, match="a prior precision is positive, and so are its factors"):
        Laplace(model).fit([(x, y)]).log_evidence(factor)


@pytest.mark.parametrize("structure", [Full, Diagonal, Kronecker])
@pytest.mark.parametrize("per", ["block", "weight"])
def test_precisions_of_blocks_and_weights(per: evidence.Per, structure: type) -> None:
    """The evidence of a new fit under the found prior is the largest: every factor a little off
    makes it smaller.
    """
    if per == "weight" and structure is Kronecker:
        pytest.skip("Kronecker factors need one precision a block")
    model, y = classification()
    guide = Laplace(model, structure=structure).fit([(X, y)])
    best = guide.maximise_evidence(per=per)
    anew = Laplace(best.model, structure=structure).fit([(X, y)])
    torch.testing.assert_close(anew.log_evidence(), best.log_evidence())
    torch.testing.assert_close(anew.covariance, best.covariance)
    assert best.log_evidence() > guide.maximise_evidence().log_evidence()
    logs = best.fitted.prior_precision.log()
    inside = (logs > evidence.BOUNDS[0] + 0.1) & (logs < evidence.BOUNDS[1] - 0.1)
    assert inside.any()
    held = best._held_evidence()
    factors = torch.ones_like(best.fitted.prior_precision).double().requires_grad_()
    one = torch.ones((), dtype=torch.double)
    (gradient,) = torch.autograd.grad(held.of_factors(factors, one, one), factors)
    starts = gradient if per == "weight" else torch.stack([g.sum() for g in gradient.split([12, 4, 12, 3])])
    mask = inside if per == "weight" else torch.stack([i[0] for i in inside.split([12, 4, 12, 3])])
    assert starts[mask].abs().max() < 1e-4


@pytest.mark.parametrize("likelihood", [likelihoods.normal(0.3), likelihoods.normal(learned(0.3))])
@pytest.mark.parametrize("per", ["network", "block"])
def test_the_noise(per: evidence.Per, likelihood: Any) -> None:
    """On a linear model the evidence is exact: its maximum in noise and prior
    is that of the joint normal density.
    """
    net = nn.Linear(2, 1, bias=False).double()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihood)
    x = torch.randn(20, 2, dtype=torch.double)
    y = x @ torch.tensor([[1.0], [-0.5]], dtype=torch.double) + 0.7 * torch.randn(20, 1, dtype=torch.double)
    guide = Laplace(model, mode(model, x, y)).fit([(x, y)])
    for _ in range(60):
        best = guide.maximise_evidence(per=per, fit_noise=True)
        guide = Laplace(best.model, mode(best.model, x, y, steps=2)).fit([(x, y)])
    torch.testing.assert_close(best.log_evidence(), guide.log_evidence())
    torch.testing.assert_close(best.covariance, guide.covariance)
    scale = best.model.likelihood.scale
    held = scale() if callable(scale) else scale
    found = (
        torch.tensor([float(best.fitted.prior_precision[0]), torch.as_tensor(held).item()], dtype=torch.double)
        .log()
        .requires_grad_()
    )
    precision, noise = found.exp()
    joint = dist.MultivariateNormal(torch.zeros(20).double(), x @ x.T / precision + noise**2 * torch.eye(20))
    (gradient,) = torch.autograd.grad(joint.log_prob(y.squeeze(1)), found)
    assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("per", ["network", "block"])
def test_the_noise_of_a_part_of_the_data_counts_for_all(per: evidence.Per) -> None:
    """Half of a data set whose other half is the same: observations, likelihood
    and curvature count twice.
    """
    net = nn.Linear(2, 1, bias=False).double()
    x = torch.randn(10, 2, dtype=torch.double)
    y = x @ torch.tensor([[1.0], [-0.5]], dtype=torch.double) + 0.7 * torch.randn(10, 1, dtype=torch.double)
    likelihood = likelihoods.normal(0.3)
    halves = [BNN(net, subset.everything(net), priors.normal(1.0), likelihood, size=size) for size in (20, None)]
    seen = [[(x, y)], [(x, y), (x, y)]]
    half, whole = (
        Laplace(model, {"weight": net.weight.detach() + 0.1}).fit(data).maximise_evidence(per=per, fit_noise=True)
        for model, data in zip(halves, seen, strict=True)
    )
    assert half.model.likelihood.scale == pytest.approx(whole.model.likelihood.scale, rel=1e-6)
    torch.testing.assert_close(half.fitted.prior_precision, whole.fitted.prior_precision, rtol=1e-6, atol=0)
    torch.testing.assert_close(half.log_evidence(), whole.log_evidence())
    torch.testing.assert_close(half.covariance, whole.covariance)


def test_noise_where_there_is_none_to_fit() -> None:
    model, y = classification()
    guide = Laplace(model).fit([(X, y)])
    with pytest.raises(ValueError, match=r"fits the scale of likelihoods\.normal; this likelihood has none"):
        guide.maximise_evidence(fit_noise=True)
    with pytest.raises(ValueError, match="one factor per 'network', 'block' or 'weight', not per 'layer'"):
        guide.maximise_evidence(per="layer")  # type: ignore[arg-type]


def test_more_data_after_the_noise_was_fitted() -> None:
    model, x, y = golden()
    best = Laplace(model, mode(model, x, y)).fit([(x, y)]).maximise_evidence(fit_noise=True)
    with pytest.raises(ValueError, match="the noise was fitted after the curvature was summed; fit again"):
        best.update([(x, y)])


def test_precisions_that_diverge_stop_at_a_bound_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    net = mlp(outputs=3)
    model = BNN(net, subset.last_layer(net), priors.around(net, 0.5), likelihoods.categorical)
    guide = Laplace(model).fit([(torch.randn(7, 3), TARGETS["categorical"]())])
    best = guide.maximise_evidence(per="block")
    assert best.fitted.prior_precision.log().max() <= evidence.BOUNDS[1] + 1e-3
    assert "2 of 2 prior precisions ran to a bound" in caplog.text
