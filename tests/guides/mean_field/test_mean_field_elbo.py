"""`MeanFieldELBO` and `normal_kl` beside torch's and Pyro's own."""

import math
from contextlib import nullcontext
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from statistical import assert_mean
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import MeanField, MeanFieldELBO
from bayesnn.guides.common.normal_kl import normal_kl

LOC = torch.randn(4, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
ZERO, ONE = torch.zeros((), dtype=torch.double), torch.ones((), dtype=torch.double)

PRIORS = {
    "scalar": (ZERO, 0.7 * ONE),
    "shared mean": (0.4 * ONE, 0.7 * ONE),
    "a mean for each": (LOC.flip(0), 0.7 * ONE),
    "a scale for each": (ZERO, LOC.exp()),
    "both for each": (LOC.flip(0), LOC.exp()),
    "a scale for each row": (ZERO, LOC[:, :1].exp()),
    "a mean for each column": (LOC[0], 0.7 * ONE),
    "one entry": (0.4 * torch.ones(1, 1, dtype=torch.double), 0.7 * torch.ones(1, 1, dtype=torch.double)),
}


@pytest.mark.parametrize("kind", PRIORS)
@pytest.mark.parametrize("wrapped", ["plain", "expanded", "independent"])
def test_normal_kl_is_torchs(kind: str, wrapped: str) -> None:
    loc, scale = (part.clone().requires_grad_() for part in PRIORS[kind])
    mean, deviation = LOC.clone().requires_grad_(), (0.1 * LOC).exp().requires_grad_()
    q: Any = dist.Normal(mean, deviation)
    p: Any = dist.Normal(loc, scale)
    expected = torch.distributions.kl_divergence(q, p.expand((4, 3))).sum()
    p = p if wrapped == "plain" else p.expand((4, 3))
    if wrapped == "independent":
        q, p = q.to_event(2), p.to_event(1).to_event(1)
    found = normal_kl(q, p)
    assert found is not None
    torch.testing.assert_close(found, expected)
    leaves = [mean, deviation, loc, scale]
    for ours, theirs in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_normal_kl_of_a_fixed_zero_mean_and_of_one_number() -> None:
    assert normal_kl(dist.Normal(1.0, 1.0), dist.Normal(0.0, 2.0)).item() == pytest.approx(math.log(2) - 0.25)
    q = dist.Normal(LOC, 0.5 * torch.ones_like(LOC))
    expected = torch.distributions.kl_divergence(q, dist.Normal(torch.zeros_like(LOC), 1.0)).sum()
    torch.testing.assert_close(normal_kl(q, dist.Normal(ZERO, ONE)), expected)


@pytest.mark.parametrize(
    "p",
    [
        dist.Laplace(0.0, 1.0),
        dist.StudentT(3.0, 0.0, 1.0),
        dist.LogNormal(0.0, 1.0),
        dist.MultivariateNormal(torch.zeros(3), torch.eye(3)),
    ],
)
def test_other_families_have_no_closed_form(p: Any) -> None:
    normal = dist.Normal(torch.zeros(3), 1.0)
    assert normal_kl(normal, p) is None
    assert normal_kl(p, normal) is None


def centre_of(name: str, value: Tensor) -> dist.TorchDistribution:
    """A user's prior with a latent mean."""
    return dist.Normal(pyro.sample(f"{name}_centre", dist.Normal(0.0, 1.0)), 0.5)


NET_PRIORS = {
    "normal": lambda net: priors.normal(0.8),
    "learned": lambda net: priors.normal(learned(0.8)),
    "fan-in": lambda net: priors.fan_in(net),
    "around": lambda net: priors.around(net, 0.3),
    "hierarchical scale": lambda net: priors.hierarchical(scale=dist.HalfCauchy(1.0)),
    "hierarchical variance": lambda net: priors.hierarchical(variance=dist.InverseGamma(3.0, 1.0)),
    "laplace": lambda net: priors.laplace(0.5),
    "student-t": lambda net: priors.student_t(4.0, 0.5),
    "a user's": lambda net: centre_of,
}


@pytest.mark.parametrize("kind", NET_PRIORS)
def test_unbiased_under_every_prior(kind: str) -> None:
    """Draw by draw beside Trace_ELBO with the same noise: the difference has mean zero, and is
    zero where it should.
    """
    net = mlp()
    model = BNN(net, subset.everything(net), NET_PRIORS[kind](net), likelihoods.categorical, size=18)
    guide = MeanField(model, scale=0.25)
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
    differences = []
    for seed in range(100):
        pyro.set_rng_seed(seed)
        ours = MeanFieldELBO().loss(model, guide, x, y)
        pyro.set_rng_seed(seed)
        differences.append(ours - Trace_ELBO().loss(model, guide, x, y))
    assert_mean(torch.tensor(differences), 0.0)
    sampled = kind in ("laplace", "student-t")  # both then compute the same terms
    assert (torch.tensor(differences).abs().max() < 1e-3) == sampled


@pytest.mark.parametrize("stock", [Trace_ELBO, TraceMeanField_ELBO])
def test_gradients_agree_with_pyros(stock: Any) -> None:
    """Of the guide and of a learned prior scale, in expectation."""
    net = nn.Linear(3, 1)
    model = BNN(net, subset.everything(net), priors.normal(learned(0.8)), likelihoods.normal(learned(0.5)))
    guide = MeanField(model, scale=0.2)
    x, y = torch.randn(6, 3), torch.randn(6, 1)
    draws = []
    for seed in range(100):
        pair = []
        for elbo in (MeanFieldELBO, stock):
            pyro.set_rng_seed(seed)
            loss = elbo()(model, guide)
            gradients = torch.autograd.grad(loss(x, y), list(loss.parameters()))
            pair.append(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        draws.append(pair[0] - pair[1])
    if stock is TraceMeanField_ELBO:  # the same terms
        torch.testing.assert_close(torch.stack(draws), torch.zeros(100, len(draws[0])), rtol=0, atol=1e-4)
    else:
        assert_mean(torch.stack(draws), 0.0)


def normal_model(x: Tensor, inner: Any = nullcontext) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("groups", 3), inner():
        v = pyro.sample("v", dist.Normal(w[..., :1], 1.0))
    with pyro.plate("data", 3):
        pyro.sample("x", dist.Normal(v, 1.0), obs=x)


class NormalGuide(nn.Module):
    """A user's guide, with whatever the model has around its site in the plate."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor, inner: Any = nullcontext) -> None:
        pyro.sample("w", dist.Normal(torch.zeros(2), 0.5).to_event(1))
        with pyro.plate("groups", 3), inner():
            pyro.sample("v", dist.Normal(self.loc, 0.5))


@pytest.mark.parametrize("scale", [0.5, torch.tensor(0.5)])
def test_one_number_scales_the_exact_kl(scale: Any) -> None:
    x, guide = torch.randn(3), NormalGuide()
    scaled = MeanFieldELBO()(poutine.scale(normal_model, scale), poutine.scale(guide, scale))
    values = []
    for loss in (scaled, MeanFieldELBO()(normal_model, guide)):
        pyro.set_rng_seed(0)
        values.append(loss(x))
    torch.testing.assert_close(values[0], 0.5 * values[1])


SURROUNDINGS = {
    "nothing": nullcontext,
    "one number": lambda: poutine.scale(scale=0.5),
    "a number for each": lambda: poutine.scale(scale=torch.tensor([0.1, 0.2, 0.3])),
    "a mask": lambda: poutine.mask(mask=torch.tensor([True, False, True])),
    "a mask of all": lambda: poutine.mask(mask=False),
}


@pytest.mark.parametrize("kind", SURROUNDINGS)
@pytest.mark.parametrize("of_guide", [True, False])
def test_scales_and_masks_mean_what_they_mean_to_pyro(kind: str, of_guide: bool) -> None:
    x, guide = torch.randn(3), NormalGuide()
    model = partial(normal_model, inner=SURROUNDINGS[kind])
    scaled = partial(guide, inner=SURROUNDINGS[kind]) if of_guide else guide
    differences = []
    for seed in range(100):
        pyro.set_rng_seed(seed)
        ours = MeanFieldELBO().loss(model, scaled, x)
        pyro.set_rng_seed(seed)
        differences.append(ours - Trace_ELBO().loss(model, scaled, x))
    assert_mean(torch.tensor(differences), 0.0)


def test_sites_without_reparameterisation() -> None:
    def model() -> None:
        pyro.sample("n", dist.Poisson(2.0))

    with pytest.raises(ValueError, match="'n' cannot be reparameterised; use Trace_ELBO"):
        MeanFieldELBO().loss(model, model)
