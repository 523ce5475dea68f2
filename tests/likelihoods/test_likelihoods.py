"""One contract for every likelihood: closed forms, shapes, draws, Fisher
information, scales of every kind.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import oracle
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from scipy import stats
from torch import Tensor, nn
from tracing import trace_of

from bayesnn import learned, likelihoods
from bayesnn.likelihoods import Likelihood
from bayesnn.models import likelihood_given
from bayesnn.models.observe import check_target

Array = Any


BATCH, DRAWS = 4, 3


# learned scales are made in single precision
SINGLE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}


@dataclass(frozen=True)
class Case:
    """A likelihood, and log p(y | f) by SciPy: `log_prob(f [batch, ...], y, site values)`,
    [batch].

    `grid` are the targets [point, ...] of one example over which p sums or integrates to 1, with a
    cell's volume; None where there is no `fisher`.
    """

    build: Callable[[], Likelihood]
    log_prob: Callable[[Array, Array, Mapping[str, Array]], Array]
    out: tuple[int, ...] = (2,)
    event: tuple[int, ...] = (2,)
    latent: Mapping[str, float] = field(default_factory=dict)
    grid: Callable[[], tuple[Tensor, float]] | None = None


def line(low: float, high: float, points: int) -> Callable[[], tuple[Tensor, float]]:
    """A grid over one real target."""
    y = torch.linspace(low, high, points, dtype=torch.double)
    return lambda: (y.unsqueeze(1), float(y[1] - y[0]))


def square(low: float, high: float, points: int) -> Callable[[], tuple[Tensor, float]]:
    """A grid over two real targets."""
    y = torch.linspace(low, high, points, dtype=torch.double)
    return lambda: (torch.cartesian_prod(y, y), float(y[1] - y[0]) ** 2)


def labels(classes: int) -> Callable[[], tuple[Tensor, float]]:
    return lambda: (torch.arange(classes), 1.0)


def counts(number: int) -> Callable[[], tuple[Tensor, float]]:
    return lambda: (torch.arange(float(number), dtype=torch.double).unsqueeze(1), 1.0)


def bits() -> tuple[Tensor, float]:
    return torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])).double(), 1.0


def _categorical(f: Array, y: Array, s: Mapping[str, Array]) -> Array:
    return torch.as_tensor(f).log_softmax(-1).gather(-1, torch.as_tensor(y).unsqueeze(-1)).squeeze(-1).numpy()


def _pixels(f: Array, y: Array, s: Mapping[str, Array]) -> Array:
    log_p = torch.as_tensor(f).log_softmax(-3)
    return log_p.gather(-3, torch.as_tensor(y).unsqueeze(-3)).sum((-3, -2, -1)).numpy()


def _bernoulli(f: Array, y: Array, s: Mapping[str, Array]) -> Array:
    return stats.bernoulli.logpmf(y, torch.as_tensor(f).sigmoid().numpy()).sum(-1)


def _poisson(f: Array, y: Array, s: Mapping[str, Array]) -> Array:
    return stats.poisson.logpmf(y, torch.as_tensor(f).exp().numpy()).sum(-1)


def _negative_binomial(r: Any) -> Callable[[Array, Array, Mapping[str, Array]], Array]:
    def log_prob(f: Array, y: Array, s: Mapping[str, Array]) -> Array:
        n = s.get("y_concentration", r)
        return stats.nbinom.logpmf(y, n, n / (n + torch.as_tensor(f).exp().numpy())).sum(-1)

    return log_prob


def _normal(scale: Any = None) -> Callable[[Array, Array, Mapping[str, Array]], Array]:
    return lambda f, y, s: stats.norm.logpdf(y, f, s.get("y_scale", scale)).sum(-1)


def _student(df: Any, scale: Any) -> Callable[[Array, Array, Mapping[str, Array]], Array]:
    return lambda f, y, s: stats.t.logpdf(y, s.get("y_df", df), f, s.get("y_scale", scale)).sum(-1)


def _heteroscedastic(f: Array, y: Array, s: Mapping[str, Array]) -> Array:
    mean, log_scale = torch.as_tensor(f).chunk(2, -1)
    return stats.norm.logpdf(y, mean.numpy(), log_scale.exp().numpy()).sum(-1)


def users_own(outputs: Tensor) -> dist.TorchDistribution:
    return dist.Exponential(outputs.exp()).to_event(1)


half_cauchy, gamma = dist.HalfCauchy(1.0), dist.Gamma(2.0, 1.0)


each = torch.tensor([0.5, 2.0])  # one scale for each output


wide, fine = line(-300, 300, 60_001), square(-15, 15, 201)


CASES: dict[str, Case] = {
    "categorical": Case(lambda: likelihoods.categorical, _categorical, (5,), (), grid=labels(5)),
    "pixelwise": Case(lambda: likelihoods.pixelwise_categorical, _pixels, (5, 2, 3), (2, 3)),
    "bernoulli": Case(lambda: likelihoods.bernoulli, _bernoulli, grid=bits),
    "poisson": Case(lambda: likelihoods.poisson, _poisson, (1,), (1,), grid=counts(100)),
    "negative_binomial": Case(
        lambda: likelihoods.negative_binomial(1.5), _negative_binomial(1.5), (1,), (1,), grid=counts(2_000)
    ),
    "negative_binomial, learned": Case(
        lambda: likelihoods.negative_binomial(learned(1.5)), _negative_binomial(1.5), (1,), (1,), grid=counts(2_000)
    ),
    "negative_binomial, latent": Case(
        lambda: likelihoods.negative_binomial(gamma), _negative_binomial(None), latent={"y_concentration": 2.5}
    ),
    "normal": Case(lambda: likelihoods.normal(0.7), _normal(0.7), grid=fine),
    "normal, one each": Case(lambda: likelihoods.normal(each), _normal(each.numpy()), grid=fine),
    "normal, learned": Case(lambda: likelihoods.normal(learned(0.7)), _normal(0.7), grid=fine),
    "normal, learned, one each": Case(lambda: likelihoods.normal(learned(each)), _normal(each.numpy()), grid=fine),
    "normal, latent": Case(lambda: likelihoods.normal(half_cauchy), _normal(), latent={"y_scale": 0.6}),
    "student_t": Case(lambda: likelihoods.student_t(3, 0.8), _student(3, 0.8), (1,), (1,), grid=wide),
    "student_t, learned": Case(
        lambda: likelihoods.student_t(learned(3.0), learned(0.8)), _student(3, 0.8), (1,), (1,), grid=wide
    ),
    "student_t, latent": Case(
        lambda: likelihoods.student_t(gamma, half_cauchy), _student(None, None), latent={"y_df": 4.5, "y_scale": 0.6}
    ),
    "heteroscedastic": Case(
        lambda: likelihoods.heteroscedastic, _heteroscedastic, (2,), (1,), grid=line(-60, 60, 20_001)
    ),
    "user's own": Case(
        lambda: users_own, lambda f, y, s: stats.expon.logpdf(y, scale=torch.as_tensor(-f).exp().numpy()).sum(-1)
    ),
}  # fmt: skip


every_likelihood = pytest.mark.parametrize("name", CASES)


def outputs_of(case: Case, *lead: int) -> Tensor:
    return 0.7 * torch.randn(*lead, BATCH, *case.out, dtype=torch.double)


def latents(case: Case) -> dict[str, Tensor]:
    return {site: torch.tensor(value, dtype=torch.double) for site, value in case.latent.items()}


def conditioned(case: Case, outputs: Tensor) -> dist.TorchDistribution:
    with poutine.condition(data=latents(case)):
        return case.build()(outputs)


@every_likelihood
def test_log_density_equals_scipys(name: str) -> None:
    case = CASES[name]
    outputs = outputs_of(case)
    distribution = conditioned(case, outputs)
    assert (distribution.batch_shape, distribution.event_shape) == ((BATCH,), case.event)
    y = distribution.sample()
    check_target(distribution, y)
    expected = case.log_prob(outputs.numpy(), y.numpy(), case.latent)
    torch.testing.assert_close(distribution.log_prob(y).detach(), torch.as_tensor(expected), **SINGLE)


@every_likelihood
def test_draws_lead_and_each_has_its_own_scale(name: str) -> None:
    case = CASES[name]
    outputs = outputs_of(case, DRAWS)
    y = conditioned(case, outputs[0]).sample()
    factors = torch.tensor([1.0, 0.5, 3.0], dtype=torch.double)
    draws = {site: factors * value for site, value in case.latent.items()}
    together = likelihood_given(case.build(), outputs, draws)
    assert (together.batch_shape, together.event_shape) == ((DRAWS, BATCH), case.event)
    log_prob = together.log_prob(y)
    for i in range(DRAWS):
        own = {site: value[i].item() for site, value in draws.items()}
        expected = case.log_prob(outputs[i].numpy(), y.numpy(), own)
        torch.testing.assert_close(log_prob[i].detach(), torch.as_tensor(expected), **SINGLE)


@every_likelihood
def test_sites_are_its_own_scales(name: str) -> None:
    case = CASES[name]
    trace = trace_of(case.build(), outputs_of(case))
    assert set(trace.stochastic_nodes) == set(case.latent)
    for site in trace.stochastic_nodes:
        assert trace.nodes[site]["value"].shape == ()
        assert trace.nodes[site]["value"].dtype == torch.double


@every_likelihood
def test_learned_scales_are_its_only_parameters(name: str) -> None:
    likelihood = CASES[name].build()
    parameters = list(likelihood.parameters()) if isinstance(likelihood, nn.Module) else []
    assert bool(parameters) == ("learned" in name)
    if parameters:
        outputs = outputs_of(CASES[name])
        log_prob = likelihood(outputs).log_prob(likelihood(outputs).sample()).sum()
        assert all((gradient != 0).all() for gradient in torch.autograd.grad(log_prob, parameters))


@every_likelihood
def test_pickling(name: str) -> None:
    case = CASES[name]
    outputs = outputs_of(case)
    y = conditioned(case, outputs).sample()
    with poutine.condition(data=latents(case)):
        again = pickle.loads(pickle.dumps(case.build()))(outputs)
    assert torch.equal(again.log_prob(y), conditioned(case, outputs).log_prob(y))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.grid])
def test_fisher_is_the_expected_outer_product_of_scores(name: str) -> None:
    """By enumeration of all labels and counts, or by integration on a fine grid."""
    case = CASES[name]
    assert case.grid is not None
    likelihood: Any = case.build()
    outputs = outputs_of(case)
    found = likelihood.fisher(outputs).detach()
    assert found.shape == (BATCH, *case.out, *case.out)
    assert found.dtype == torch.double
    targets, volume = case.grid()
    for one, information in zip(outputs, found, strict=True):
        weights = likelihood(one.expand(len(targets), -1)).log_prob(targets).exp().detach() * volume
        torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.double), rtol=1e-5, atol=0)
        expected = oracle.fisher(lambda f, y: likelihood(f).log_prob(y), one, targets, weights)
        torch.testing.assert_close(information, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["bernoulli", "poisson", "negative_binomial", "normal", "student_t"])
def test_several_outputs_are_independent(name: str) -> None:
    likelihood: Any = CASES[name].build()
    f = torch.randn(BATCH, 3, dtype=torch.double)
    alone = torch.cat([likelihood.fisher(f[:, [k]]).squeeze(-1) for k in range(3)], dim=1)
    torch.testing.assert_close(likelihood.fisher(f), torch.diag_embed(alone))
