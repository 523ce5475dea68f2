"""Variational Laplace of models with constrained sites: beside the same models written in
unconstrained space.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer.autoguide import AutoDiagonalNormal, AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from statistical import assert_mean
from torch import Tensor, nn
from torch.distributions import biject_to, constraints
from torch.nn import functional as F
from variational_laplace_problems import NoCurvature, X, Y, real

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.fit import fit
from bayesnn.guides import MeanField, VariationalLaplaceELBO, faster_variances
from bayesnn.guides.fisher import ExactFisher
from bayesnn.guides.fisher.rules import RULES
from bayesnn.guides.variational_laplace import fit_variances

EXACT = VariationalLaplaceELBO(ExactFisher())
ZERO, ONE = real(0.0).squeeze(), real(1.0).squeeze()


class LogHalfCauchy(dist.TorchDistribution):
    """Of u where exp(u) is half-Cauchy: log p = log(2 / pi
    s) - log(1 + e^2u / s^2) + u, by hand.
    """

    support = constraints.real
    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, scale: Tensor, batch_shape: Any = ()) -> None:
        self.scale = scale.expand(batch_shape)
        super().__init__(torch.Size(batch_shape), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "LogHalfCauchy":
        return LogHalfCauchy(self.scale, batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.zeros(torch.Size(sample_shape) + self.batch_shape, dtype=torch.double)

    def log_prob(self, value: Tensor) -> Tensor:
        return math.log(2 / math.pi) - self.scale.log() - torch.log1p((2 * value).exp() / self.scale**2) + value


def regression(tau: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), 1.0).to_event(1))
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Normal(X @ w, tau), obs=Y)


def noisy() -> None:
    """A latent scale of the noise."""
    regression(pyro.sample("tau", dist.HalfCauchy(ONE)))


def noisy_log() -> None:
    regression(pyro.sample("tau", LogHalfCauchy(ONE)).exp())


def noisy_normal() -> None:
    """Its logarithm has a normal prior."""
    regression(pyro.sample("tau", dist.LogNormal(real(0.3).squeeze(), 0.7)))


def noisy_normal_log() -> None:
    regression(pyro.sample("tau", dist.Normal(real(0.3).squeeze(), 0.7)).exp())


def horseshoe(global_prior: Any, local_prior: Any, value: Callable[[Tensor], Tensor]) -> None:
    """Scales of single weights around a common one."""
    tau = value(pyro.sample("tau", global_prior(ONE)))
    with pyro.plate("weights", 2):
        scales = value(pyro.sample("scales", local_prior(tau)))
        w = pyro.sample("w", dist.Normal(ZERO, scales))
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Normal(X @ w, 0.5), obs=Y)


def identity(value: Tensor) -> Tensor:
    return value


def simplex() -> None:
    p = pyro.sample("tau", dist.Dirichlet(real(2.0, 1.0, 0.5)))
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Categorical(p), obs=torch.tensor([0, 0, 2]))


def simplex_free() -> None:
    sticks = biject_to(constraints.simplex)
    p = sticks(pyro.sample("tau", dist.TransformedDistribution(dist.Dirichlet(real(2.0, 1.0, 0.5)), [sticks.inv])))
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Categorical(p), obs=torch.tensor([0, 0, 2]))


MODELS: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
    "half-Cauchy": (noisy, noisy_log),
    "log-normal": (noisy_normal, noisy_normal_log),
    "Dirichlet": (simplex, simplex_free),
    "horseshoe": (
        partial(horseshoe, dist.HalfCauchy, dist.HalfCauchy, identity),
        partial(horseshoe, LogHalfCauchy, LogHalfCauchy, torch.exp),
    ),
}
GUIDES: dict[str, Callable[[Any], Any]] = {
    "AutoNormal": partial(AutoNormal, init_scale=0.2),
    "AutoDiagonalNormal": partial(AutoDiagonalNormal, init_scale=0.2),
    "AutoMultivariateNormal": partial(AutoMultivariateNormal, init_scale=0.2),
    "AutoLowRankMultivariateNormal": partial(AutoLowRankMultivariateNormal, init_scale=0.2, rank=1),
}


def made(kind: str, model: Any) -> Any:
    """A guide with the same parameters for either of two models."""
    guide = GUIDES[kind](model)
    guide()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in guide.named_parameters():
            if "loc" in name or "factor" in name:
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return guide.double()


def value_and_gradient(elbo: Any, model: Any, guide: Any) -> tuple[Tensor, list[Tensor]]:
    pyro.set_rng_seed(5)
    loss = elbo(model, guide)()
    return loss, list(torch.autograd.grad(loss, list(guide.parameters())))


@pytest.mark.parametrize("kind", GUIDES)
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_model_in_unconstrained_space(name: str, kind: str) -> None:
    """Value and gradient of the loss at the same noise."""
    model, free = MODELS[name]
    if name == "horseshoe":
        if kind != "AutoNormal":
            with pytest.raises(ValueError, match=r"'scales' .* its prior must not depend on the other parts"):
                EXACT(model, made(kind, model))()
            return
        elbo = VariationalLaplaceELBO(ExactFisher({LogHalfCauchy: of_logarithm}))
    else:
        elbo = EXACT
    found, expected = (value_and_gradient(elbo, one, made(kind, one)) for one in (model, free))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def of_logarithm(fn: LogHalfCauchy) -> Any:
    """The Fisher information in a scale is that of any bijection of the variable."""
    return [(fn.scale, lambda xi: xi * math.sqrt(0.5) / fn.scale)]


def test_the_divergence_has_the_exact_mean() -> None:
    """Beside quadrature of log q - log p in unconstrained space."""
    guide = made("AutoNormal", noisy)
    loc = guide.locs.tau.detach()
    u = loc + 0.2 * torch.linspace(-9, 9, 20_001, dtype=torch.double)
    q = dist.Normal(loc, 0.2 * ONE).log_prob(u)
    exact = (q.exp() * (q - LogHalfCauchy(ONE).log_prob(u))).sum() * (u[1] - u[0])
    w = guide.locs.w.detach()
    prior = dist.Normal(torch.zeros(2).double(), 1.0)
    exact = exact + torch.distributions.kl_divergence(dist.Normal(w, 0.2 * torch.ones(2).double()), prior).sum()
    nll = -dist.Normal(X @ w, loc.exp()).log_prob(Y).sum()
    # F of log tau: 2 for each example
    penalty = 0.5 * 0.2**2 * (X.square().sum() / (2 * loc).exp() + 2 * len(Y))
    draws = torch.stack([EXACT(noisy, guide)().detach() for _ in range(150)])
    assert_mean(draws, exact + nll + penalty)
    total = EXACT(noisy_normal, guide)()
    normal = torch.distributions.kl_divergence(dist.Normal(loc, 0.2 * ONE), dist.Normal(real(0.3).squeeze(), 0.7))
    rest = torch.distributions.kl_divergence(dist.Normal(w, 0.2 * torch.ones(2).double()), prior).sum()
    torch.testing.assert_close(total.detach(), nll + penalty + normal + rest, rtol=0, atol=1e-10)


class Written(nn.Module):
    """A user's guide whose site is a transform of a normal one."""

    def __init__(self, transform: Any) -> None:
        super().__init__()
        self.loc, self.w, self.transform = nn.Parameter(real(0.2).squeeze()), nn.Parameter(real(0.5, 0.6)), transform

    def forward(self) -> None:
        self.transform(self.loc)
        pyro.sample("w", dist.Normal(self.w, 0.1 * torch.ones(2).double()).to_event(1))


def log_normal(loc: Tensor) -> None:
    pyro.sample("tau", dist.LogNormal(loc, 0.3 * ONE))


def transformed(loc: Tensor) -> None:
    pyro.sample("tau", dist.TransformedDistribution(dist.Normal(loc, 0.3 * ONE), dist.transforms.ExpTransform()))


def with_density(loc: Tensor) -> None:
    u = pyro.sample("u", dist.Normal(loc, 0.3 * ONE), infer={"is_auxiliary": True})
    pyro.sample("tau", dist.Delta(u.exp(), log_density=-u))


def normal(loc: Tensor) -> None:
    pyro.sample("tau", dist.Normal(loc, 0.3 * ONE))


@pytest.mark.parametrize("way", [log_normal, transformed, with_density])
@pytest.mark.parametrize("name", ["half-Cauchy", "log-normal"])
def test_handwritten_guides(name: str, way: Any) -> None:
    model, free = MODELS[name]
    found, expected = (value_and_gradient(EXACT, *pair) for pair in ((model, Written(way)), (free, Written(normal))))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_a_transform_of_ones_own() -> None:
    """Softplus in the place of the exponential; its mean over draws is that of any other way to
    the same integral.
    """

    def softplus(loc: Tensor) -> None:
        pyro.sample(
            "tau", dist.TransformedDistribution(dist.Normal(loc, 0.3 * ONE), dist.transforms.SoftplusTransform())
        )

    guide = Written(softplus)
    u = 0.2 + 0.3 * torch.randn(100_000, dtype=torch.double)
    log_q = dist.Normal(0.2 * ONE, 0.3).log_prob(u) - F.logsigmoid(u)  # |dT/du| = sigmoid(u)
    divergence = log_q - dist.HalfCauchy(ONE).log_prob(F.softplus(u))
    none = VariationalLaplaceELBO(NoCurvature())
    mode = F.softplus(real(0.2).squeeze())
    prior = dist.Normal(torch.zeros(2).double(), 1.0)
    rest = torch.distributions.kl_divergence(dist.Normal(real(0.5, 0.6), 0.1 * torch.ones(2).double()), prior).sum()
    rest = rest - dist.Normal(X @ real(0.5, 0.6), mode).log_prob(Y).sum()
    draws = torch.stack([none(noisy, guide)().detach() for _ in range(200)])
    assert_mean(draws, divergence.mean() + rest)
    penalty = EXACT(noisy_normal, guide)
    slope = torch.sigmoid(real(0.2).squeeze()) / mode
    pyro.set_rng_seed(0)
    found = penalty()
    pyro.set_rng_seed(0)
    expected = 0.5 * (0.09 * 2 * 3 * slope**2 + 0.01 * X.square().sum() / mode**2)
    torch.testing.assert_close((found - none(noisy_normal, guide)()).detach(), expected, rtol=0, atol=1e-10)


def test_a_hierarchical_prior_of_a_network_trains() -> None:
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    prior, noise = priors.hierarchical(scale=dist.HalfCauchy(1.0)), likelihoods.normal(0.3)
    x = torch.randn(40, 2)
    y = torch.sin(x[:, :1])
    model = BNN(net, subset.everything(net), prior, noise, size=40)
    guide = MeanField(model, scale=0.1)
    elbo = VariationalLaplaceELBO()
    adam = partial(torch.optim.Adam, lr=0.01)
    history = fit(
        elbo(model, guide), [(x, y)], epochs=40, optimizer=adam, groups=faster_variances(0.01, 3), progress=False
    )
    assert history.loss[-1] < 0.7 * history.loss[0]
    assert guide.loc.isfinite().all()
    auto = AutoNormal(model)
    auto(x, y)
    loss = elbo(model, auto)
    loss(x, y).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())


def test_closed_form_variances_of_a_constrained_site() -> None:
    def model(_: object) -> None:
        noisy_normal()

    guide = fit_variances(MeanField(model, None), [None])
    loss = EXACT(model, guide)(None)
    gradient = torch.autograd.grad(loss, guide.log_scale)[0]
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"the prior of 'tau' is .*, not normal"):
        fit_variances(MeanField(lambda _: noisy(), None), [None])


@pytest.mark.parametrize("kind", ["Cauchy", "HalfCauchy", "HalfNormal"])
def test_fisher_information_of_scales(kind: str) -> None:
    """The mean square of the score, at 200,000 quantiles."""
    family, grid = getattr(dist, kind), (torch.arange(200_000, dtype=torch.double) + 0.5) / 200_000
    start = (real(0.3), real(0.8)) if kind == "Cauchy" else (real(0.8),)
    value = family(*start).icdf(grid)
    wide = tuple(v.repeat(len(grid)).requires_grad_() for v in start)
    score = torch.stack(torch.autograd.grad(family(*wide).log_prob(value).sum(), wide))
    roots = [root(ONE) for _, root in RULES[family](family(*start))]
    found = torch.diag(torch.stack([root.squeeze() for root in roots]) ** 2)
    torch.testing.assert_close(found, score @ score.T / len(grid), rtol=1e-3, atol=1e-6)


def test_a_transformed_prior_whose_transform_is_latent_is_noticed() -> None:
    """Its Fisher information is not known, and must not be left out."""

    def model() -> None:
        centre = pyro.sample("w", dist.Normal(ZERO, 1.0))
        moved = dist.TransformedDistribution(dist.Normal(ZERO, 1.0), [dist.transforms.AffineTransform(centre, 2.0)])
        pyro.sample("tau", moved)

    guide = AutoNormal(model)
    guide()
    with pytest.raises(ValueError, match=r"Fisher information of TransformedDistribution .site 'tau'"):
        EXACT(model, guide.double())()


def test_a_delta_through_another_function() -> None:
    def softplus(loc: Tensor) -> None:
        u = pyro.sample("u", dist.Normal(loc, 0.3 * ONE), infer={"is_auxiliary": True})
        pyro.sample("tau", dist.Delta(F.softplus(u), log_density=-F.logsigmoid(u)))

    with pytest.raises(ValueError, match=r"'tau' is a Delta .* another function .* sample it as a TransformedDistrib"):
        EXACT(noisy, Written(softplus))()

    def without_density(loc: Tensor) -> None:
        u = pyro.sample("u", dist.Normal(loc, 0.3 * ONE), infer={"is_auxiliary": True})
        pyro.sample("tau", dist.Delta(u.exp()))

    with pytest.raises(ValueError, match=r"'tau' must take every entry of the normal site 'u' once and as it is"):
        EXACT(noisy, Written(without_density))()


SUPPORTS: dict[str, Any] = {
    "Gamma": dist.Gamma(2.0 * ONE, 1.5),
    "InverseGamma": dist.InverseGamma(3.0 * ONE, 1.5),
    "Beta": dist.Beta(2.0 * ONE, 1.0),
    "Uniform": dist.Uniform(-ONE, 2 * ONE),
    "HalfNormal": dist.HalfNormal(2 * ONE),
    "Exponential": dist.Exponential(2 * ONE),
    "LogNormal": dist.LogNormal(ONE, 0.5),
    "VonMises": dist.VonMises(ZERO, ONE),
}


@pytest.mark.parametrize(
    "make", [partial(AutoNormal, init_scale=0.3), partial(MeanField, scale=0.3)], ids=["auto", "own"]
)
@pytest.mark.parametrize("kind", SUPPORTS)
def test_divergence_from_priors_of_every_support(kind: str, make: Any) -> None:
    """In a plate under a scale, beside quadrature in unconstrained space."""
    prior = SUPPORTS[kind]

    def model(*_: object) -> None:
        with pyro.plate("two", 2), poutine.scale(scale=0.5):
            pyro.sample("tau", prior)

    guide = poutine.scale(made_of(make, model), 0.5)
    transform = biject_to(prior.support)
    q = dist.Normal(0.2 * ONE, 0.3)
    u = 0.2 + 0.3 * torch.linspace(-9, 9, 20_001, dtype=torch.double)
    log_p = prior.log_prob(transform(u)) + transform.log_abs_det_jacobian(u, transform(u))
    exact = (q.log_prob(u).exp() * (q.log_prob(u) - log_p)).sum() * (u[1] - u[0])
    draws = torch.stack([EXACT(model, guide)().detach() for _ in range(60)])
    if kind == "LogNormal":
        torch.testing.assert_close(draws, exact.expand(60))
    else:
        assert_mean(draws, exact)


def made_of(make: Any, model: Any) -> Any:
    guide = make(model) if make.func is AutoNormal else make(model, None)
    guide()
    with torch.no_grad():
        for name, parameter in guide.named_parameters():
            if "loc" in name.split(".")[0]:
                parameter.fill_(0.2)
    return guide.double()
