"""One contract for every prior: closed forms, shapes, particles, own sites,
precision, devices, pickling.
"""

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from pyro import poutine
from scipy import stats
from statistical import assert_mean
from torch import Tensor, nn
from tracing import trace_of

from bayesnn import BNN, learned, likelihoods, priors
from bayesnn.functional import parameters
from bayesnn.priors import Prior
from bayesnn.subset import Subset, everything

CENTRE = 0.3


# learned scales are made in single precision
SINGLE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}


@dataclass(frozen=True)
class Case:
    """A prior of `mlp()` and what it must be: `log_prob(name, value, latent)`
    elementwise, by SciPy.
    """

    build: Callable[[nn.Module], Prior]
    log_prob: Callable[[str, Any, float], Any]
    own_site: str = ""
    latent: float = 0.0
    own_log_prob: Callable[[float], float] = field(default=lambda s: 0.0)


def users_own(name: str, value: Tensor) -> dist.TorchDistribution:
    return dist.Normal(0.0, 3.0 if name.endswith("bias") else 0.5)


def correlated(name: str, value: Tensor) -> dist.TorchDistribution:
    """An event of its own: the rows of a matrix, the whole of a vector."""
    size = value.shape[-1]
    return dist.MultivariateNormal(value.new_zeros(size), torch.eye(size).to(value) + 0.5)


def with_own_site(name: str, value: Tensor) -> dist.TorchDistribution:
    scale = pyro.sample(f"{name}_width", dist.Gamma(value.new_tensor(2.0), value.new_tensor(1.0)))
    return dist.Normal(value.new_zeros(()), scale.reshape(scale.shape + (1,) * value.dim()))


def _fan_in(name: str, value: Any, _: float) -> Any:
    width = {"0.weight": 3, "2.weight": 4}.get(name)
    return stats.norm.logpdf(value, 0, math.sqrt(2 / width) if width else 0.7)


def _around(net: nn.Module) -> Prior:
    return priors.around({name: torch.full_like(v, CENTRE) for name, v in parameters(net).items()}, 0.2)


def latent(build: Callable[[], Prior], log_prob: Callable[[Any, float], Any]) -> Case:
    """A scale of its own for every block, half-Cauchy; `log_prob(value, scale)`."""
    own = stats.halfcauchy(scale=2.0).logpdf
    return Case(lambda net: build(), lambda n, w, s: log_prob(w, s), "_scale", 0.7, own)


def alike(build: Callable[[], Prior], log_prob: Callable[[Any], Any]) -> Case:
    """One distribution for every block, without sites of its own."""
    return Case(lambda net: build(), lambda n, w, s: log_prob(w))


half_cauchy = dist.HalfCauchy(2.0)


norm, t = stats.norm.logpdf, stats.t.logpdf


CASES: dict[str, Case] = {
    "normal": alike(lambda: priors.normal(2.0), lambda w: norm(w, 0, 2)),
    "normal, learned": alike(lambda: priors.normal(learned(0.4)), lambda w: norm(w, 0, 0.4)),
    "normal, latent": latent(lambda: priors.normal(half_cauchy), lambda w, s: norm(w, 0, s)),
    "laplace": alike(lambda: priors.laplace(1.5), lambda w: stats.laplace.logpdf(w, 0, 1.5)),
    "laplace, learned": alike(lambda: priors.laplace(learned(3)), lambda w: stats.laplace.logpdf(w, 0, 3)),
    "laplace, latent": latent(lambda: priors.laplace(half_cauchy), lambda w, s: stats.laplace.logpdf(w, 0, s)),
    "student_t": alike(lambda: priors.student_t(3, 0.8), lambda w: t(w, 3, 0, 0.8)),
    "student_t, learned": alike(lambda: priors.student_t(5, learned(2)), lambda w: t(w, 5, 0, 2)),
    "student_t, latent": latent(lambda: priors.student_t(5, half_cauchy), lambda w, s: t(w, 5, 0, s)),
    "around": Case(_around, lambda n, w, s: norm(w, CENTRE, 0.2)),
    "fan_in": Case(lambda net: priors.fan_in(net, math.sqrt(2), bias_scale=0.7), _fan_in),
    "rescaled": alike(lambda: priors.rescaled(priors.normal(2.0), 0.5), lambda w: norm(w, 0, 1)),
    "rescaled, latent": latent(
        lambda: priors.rescaled(priors.normal(half_cauchy), 0.5), lambda w, s: norm(w, 0, 0.5 * s)
    ),
    "hierarchical scale": latent(lambda: priors.hierarchical(scale=half_cauchy), lambda w, s: norm(w, 0, s)),
    "hierarchical variance": Case(
        lambda net: priors.hierarchical(variance=dist.InverseGamma(3.0, 2.0)),
        lambda n, w, v: norm(w, 0, math.sqrt(v)),
        "_variance",
        0.49,
        stats.invgamma(3, scale=2).logpdf,
    ),
    "user's own": Case(lambda net: users_own, lambda n, w, s: norm(w, 0, 3 if n.endswith("bias") else 0.5)),
    "user's own, with a site": Case(
        lambda net: with_own_site, lambda n, w, s: norm(w, 0, s), "_width", 0.9, stats.gamma(2).logpdf
    ),
}


every_prior = pytest.mark.parametrize("name", CASES)


def blocks(net: nn.Module) -> Subset:
    """A whole matrix, a whole vector, and some entries of a matrix."""
    return Subset(everything(net).shape, {"0.weight": None, "0.bias": None, "2.weight": torch.tensor([0, 3, 6])})


def build(name: str, dtype: torch.dtype = torch.double) -> tuple[BNN, Case]:
    net, case = mlp().to(dtype), CASES[name]
    prior = case.build(net)
    if name == "around":
        prior = priors.around(
            blocks(net).take({n: torch.full_like(v, CENTRE) for n, v in parameters(net).items()}), 0.2
        )
    return BNN(net, blocks(net), prior, likelihoods.normal(1.0)), case


def given(model: BNN, case: Case, latent: float | Tensor | None = None) -> dict[str, Tensor]:
    value = torch.as_tensor(case.latent if latent is None else latent, dtype=torch.double)
    return {block + case.own_site: value for block in model.subset.names} if case.own_site else {}


def trace_at(model: Callable[..., object], values: Mapping[str, Tensor]) -> Any:
    return trace_of(poutine.condition(model, data=dict(values)), torch.zeros(2, 3, dtype=torch.double))


@every_prior
def test_log_density_equals_scipys_on_whole_and_partial_blocks(name: str) -> None:
    model, case = build(name)
    trace = trace_at(model.sample, given(model, case))
    for block, shape in model.sites.items():
        node = trace.nodes[block]
        assert node["fn"].event_shape == shape
        assert node["fn"].batch_shape == ()
        expected = case.log_prob(block, node["value"].detach().numpy(), case.latent).sum()
        torch.testing.assert_close(node["log_prob"].detach(), torch.tensor(expected, dtype=torch.double), **SINGLE)
        if case.own_site:
            own = trace.nodes[block + case.own_site]["log_prob"]
            torch.testing.assert_close(own, torch.tensor(case.own_log_prob(case.latent), dtype=torch.double))


@every_prior
def test_sites_are_the_blocks_and_the_priors_own(name: str) -> None:
    model, case = build(name)
    own = [block + case.own_site for block in model.subset.names] if case.own_site else []
    trace = trace_of(model.sample, torch.zeros(2, 3, dtype=torch.double))
    assert set(trace.stochastic_nodes) == {*model.subset.names, *own}


@every_prior
def test_particles_have_their_own_scales(name: str) -> None:
    """Inside a plate of particles each is what it would be alone."""
    model, case = build(name)
    latents = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.double)

    def particles(x: Tensor) -> None:
        with pyro.plate("particles", 4, dim=-2):
            model.sample(x)

    trace = trace_at(particles, given(model, case, latents.unsqueeze(1)))
    for block, shape in model.sites.items():
        node = trace.nodes[block]
        assert node["value"].shape == (4, 1, *shape)
        assert node["log_prob"].shape == (4, 1)
        for i, latent in enumerate(latents.tolist()):
            expected = case.log_prob(block, node["value"][i, 0].detach().numpy(), latent).sum()
            torch.testing.assert_close(node["log_prob"][i, 0], torch.tensor(expected, dtype=torch.double), **SINGLE)


@every_prior
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_precision_follows_the_network(name: str, dtype: torch.dtype) -> None:
    model, _ = build(name, dtype)
    trace = trace_of(model.sample, torch.zeros(2, 3, dtype=dtype))
    for site in trace.stochastic_nodes:
        assert trace.nodes[site]["value"].dtype == dtype


@pytest.mark.parametrize("name", [name for name in CASES if not CASES[name].own_site and "user" not in name])
def test_device_follows_the_network(name: str) -> None:
    """Tried on torch's "meta" device, which refuses to mix with any other and is everywhere."""
    net = mlp()
    prior: Any = CASES[name].build(net)
    if isinstance(prior, nn.Module):
        prior.to("meta")
    with pyro.validation_enabled(is_validate=False):
        drawn = prior("0.weight", net[0].weight.detach().to("meta")).expand([4, 3])
    assert all(value.device.type == "meta" for value in vars(drawn).values() if isinstance(value, Tensor))


@pytest.mark.gpu
def test_device_follows_the_network_on_a_gpu() -> None:
    net = mlp().cuda()
    for case in CASES.values():
        model = BNN(net, everything(net), case.build(net), likelihoods.normal(1.0))
        assert model.sample(torch.zeros(2, 3, device="cuda")).device.type == "cuda"


@every_prior
def test_pickling(name: str) -> None:
    model, case = build(name)
    prior = pickle.loads(pickle.dumps(model.prior))
    value = torch.full((4, 3), 0.4, dtype=torch.double)
    with poutine.condition(data={"0.weight" + case.own_site: torch.tensor(0.7, dtype=torch.double)}):
        before, after = model.prior("0.weight", value), prior("0.weight", value)
    assert torch.equal(before.log_prob(value), after.log_prob(value))


@every_prior
def test_draws_have_the_priors_distribution(name: str) -> None:
    """P(w < the median of the reference) = 1/2 and P(w < its upper
    decile) = 0.9, the latent scale given.
    """
    model, case = build(name)
    value = torch.zeros(4, 3, dtype=torch.double)
    with poutine.condition(data={"0.weight" + case.own_site: torch.tensor(case.latent, dtype=torch.double)}):
        draws = model.prior("0.weight", value).expand([4, 3]).sample((500,)).flatten()
    grid = torch.linspace(-200, 200, 400_001, dtype=torch.double)
    density = torch.as_tensor(case.log_prob("0.weight", grid.numpy(), case.latent)).exp()
    cdf = density.cumsum(0) * (grid[1] - grid[0])
    for probability in (0.5, 0.9):
        quantile = grid[int((cdf < probability).sum())]
        assert_mean((draws <= quantile).double(), cdf[cdf < probability][-1])


def test_an_event_of_the_priors_own() -> None:
    net = mlp().double()
    model = BNN(net, blocks(net), correlated, likelihoods.normal(1.0))
    trace = trace_at(model.sample, {})
    for block, shape in model.sites.items():
        node = trace.nodes[block]
        covariance = (torch.eye(shape[-1]) + 0.5).numpy()
        expected = stats.multivariate_normal(cov=covariance).logpdf(node["value"].reshape(-1, shape[-1]).numpy()).sum()
        torch.testing.assert_close(node["log_prob"], torch.tensor(expected, dtype=torch.double))


def test_learned_scales_are_the_modules_only_parameters() -> None:
    for name, case in CASES.items():
        model, _ = build(name)
        expected = ["prior.scale.log_value"] if "learned" in name else []
        assert [parameter for parameter, _ in model.named_parameters()] == expected, case
