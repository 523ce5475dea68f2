"""The marginal likelihood of a Laplace approximation, and the prior that maximises it."""

import pyro
import pytest
import torch
from laplace_problems import TARGETS, golden, log_joint, mode
from nets import mlp
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import Laplace

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
    torch.testing.assert_close(again.prior_precision, best.prior_precision, rtol=1e-9, atol=0)
    assert guide.log_evidence().item() == before  # the guide itself stays


@pytest.mark.parametrize("prior", PRIORS)
def test_the_new_guide_belongs_to_its_model(prior: str) -> None:
    """Its model has the prior that its precision contains: a new fit of that model is the same posterior."""
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
        # For a normal approximation the evidence is the log joint less the log density at the mode.
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
