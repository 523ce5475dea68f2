"""What variational Laplace refuses, and what it says."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from nets import Attention
from pyro import distributions as dist
from pyro import poutine
from pyro.infer.autoguide import AutoDelta
from torch import Tensor, nn
from variational_laplace_problems import Handwritten, NoCurvature, classifier, linear

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import MeanField, VariationalLaplaceELBO
from bayesnn.guides.fisher import EmpiricalFisher, ExactFisher, FisherProbes, MonteCarloFisher

ZERO = torch.zeros(2)


def loss(guide: Callable[..., Any], model: Any = linear, **options: Any) -> Tensor:
    return VariationalLaplaceELBO(**options)(nn_of(model), nn_of(guide))()


def nn_of(function: Callable[..., Any]) -> Any:
    return function


def site(fn: Any) -> Callable[..., None]:
    def guide(*args: Any) -> None:
        pyro.sample("w", fn)

    return guide


REFUSED: dict[str, tuple[Any, str]] = {
    "gamma": (dist.Gamma(torch.ones(2), 1.0).to_event(1), "guide's site 'w' is Gamma, not normal"),
    "discrete": (dist.Bernoulli(0.5 * torch.ones(2)).to_event(1), "guide's site 'w' is discrete; sum it out"),
    "folded": (dist.HalfNormal(torch.ones(2)).to_event(1), "guide's site 'w' is HalfNormal, not normal"),
    "point": (dist.Delta(ZERO).to_event(1), "guide's site 'w' is a Delta, which must be a part of one normal site"),
    "float16": (dist.Normal(ZERO.half(), torch.ones(2).half()).to_event(1), "'w' is torch.float16.*keep the guide in"),
    "bfloat16": (dist.Normal(ZERO.bfloat16(), torch.ones(2).bfloat16()).to_event(1), "'w' is torch.bfloat16"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_guides_that_are_not_normal(kind: str) -> None:
    fn, message = REFUSED[kind]
    with pytest.raises((ValueError, TypeError), match=message):
        loss(site(fn))


def test_points_of_autodelta() -> None:
    with pytest.raises(ValueError, match="'w' is a Delta"):
        loss(AutoDelta(linear))


def test_sites_that_one_side_lacks() -> None:
    with pytest.raises(ValueError, match="guide has no site 'w', which is latent"):
        loss(lambda: pyro.sample("other", dist.Normal(torch.tensor(0.0), 1.0)))

    def more() -> None:
        Handwritten()()
        pyro.sample("other", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="guide's site 'other' is not in the model"):
        loss(more)

    def mixture() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        k = pyro.sample("k", dist.Categorical(torch.ones(2)))
        pyro.sample("y", dist.Normal(w[k], 1.0), obs=torch.tensor(0.3))

    with pytest.raises(ValueError, match="no site 'k', which is latent in the model and is discrete: sum it out"):
        loss(site(dist.Normal(ZERO, 1.0).to_event(1)), mixture)


def test_a_guide_without_sites() -> None:
    def observed() -> None:
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))

    with pytest.raises(ValueError, match="the guide has no normal site"):
        loss(lambda: None, observed)


def test_draws_that_depend_on_one_another() -> None:
    def model() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(a + b, 1.0), obs=torch.tensor(0.3))

    def guide() -> None:
        a = pyro.sample("a", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("b", dist.Normal(2 * a, 1.0))

    with pytest.raises(ValueError, match=r"guide's site 'b' depends on the draw of another site.*MultivariateNormal"):
        loss(guide, model)


def test_different_scales_in_guide_and_model() -> None:
    with pytest.raises(ValueError, match=r"'w' is scaled by 1.0 in the guide and by 0.5 in the model; open the same"):
        loss(Handwritten(), poutine.scale(linear, 0.5))
    each = torch.tensor([0.5, 1.0, 1.0], dtype=torch.double)
    with pytest.raises(ValueError, match="'w' is scaled by"):
        loss(Handwritten(), poutine.scale(linear, each))


def test_parts_of_a_normal_site_must_be_parts() -> None:
    def guide() -> None:
        z = pyro.sample(
            "z", dist.MultivariateNormal(ZERO.double(), torch.eye(2).double()), infer={"is_auxiliary": True}
        )
        pyro.sample("w", dist.Delta(2 * z, event_dim=1))

    with pytest.raises(ValueError, match="'w' must take every entry of the normal site 'z' once and as it is"):
        loss(guide)


def gamma(curvature: Any) -> Tensor:
    def model() -> None:
        w = pyro.sample("w", dist.Normal(ZERO, 1.0).to_event(1))
        with pyro.plate("data", 2):
            pyro.sample("y", dist.Gamma(w.exp(), 1.0), obs=torch.tensor([0.3, 1.0]))

    return VariationalLaplaceELBO(curvature)(model, site(dist.Normal(ZERO, 0.1).to_event(1)))()


def test_families_without_a_known_fisher_information() -> None:
    with pytest.raises(ValueError, match=r"Gamma .site 'y'.* not known; use curvature=MonteCarloFisher"):
        gamma(FisherProbes())
    assert gamma(MonteCarloFisher()).isfinite()
    assert gamma(EmpiricalFisher()).isfinite()
    rule = {dist.Gamma: lambda fn: [(fn.concentration, lambda xi: xi * torch.polygamma(1, fn.concentration).sqrt())]}
    found = gamma(ExactFisher(rule)) - gamma(NoCurvature())
    assert found.item() == pytest.approx(0.5 * 2 * 0.01 * torch.pi**2 / 6, rel=1e-5)

    def model() -> None:
        w = pyro.sample("w", dist.Normal(ZERO, 1.0).to_event(1))
        pyro.sample("y", dist.StudentT(w[0].exp(), w[1], 1.0), obs=torch.tensor(0.3))

    with pytest.raises(ValueError, match=r"StudentT .site 'y'. in all parameters that depend on the weights"):
        loss(site(dist.Normal(ZERO, 0.1).to_event(1)), model)


def test_operations_without_second_derivatives_are_named() -> None:
    net = Attention().eval()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical)
    x, y = torch.randn(3, 5, 4), torch.tensor([0, 1, 1])
    with pytest.raises(RuntimeError, match=r"no second derivative .*scaled_dot_product.*curvature_grad=False"):
        VariationalLaplaceELBO()(model, MeanField(model))(x, y)
    VariationalLaplaceELBO(curvature_grad=False)(model, MeanField(model))(x, y).backward()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        VariationalLaplaceELBO()(model, MeanField(model))(x, y).backward()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


def test_a_users_function_that_is_differentiable_once() -> None:
    def model() -> None:
        w = pyro.sample("w", dist.Normal(ZERO, 1.0).to_event(1))
        pyro.sample("y", dist.Categorical(logits=Once.apply(w)), obs=torch.tensor(0))

    with pytest.raises(RuntimeError, match=r"no second derivative .*once_differentiable"):
        loss(site(dist.Normal(torch.ones(2), 0.1).to_event(1)), model)


def test_exact_derivatives_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from bayesnn.functional import memory

    model, x, y = classifier()
    monkeypatch.setattr(memory, "available", lambda device: 100)
    elbo = VariationalLaplaceELBO(ExactFisher())
    with pytest.raises(MemoryError, match=r"6 exact derivatives of site 'y' in 15 weights.*FisherProbes"):
        elbo(model, MeanField(model))(x, y)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_kl_weight_that_is_none(weight: float) -> None:
    with pytest.raises(ValueError, match="the weight of the KL must be positive and finite"):
        VariationalLaplaceELBO(kl_weight=weight)


@pytest.mark.parametrize("curvature", [FisherProbes, MonteCarloFisher, EmpiricalFisher])
def test_no_draws(curvature: Any) -> None:
    with pytest.raises(ValueError, match=f"{curvature.__name__}: at least one draw is needed, not 0"):
        curvature(0)


def test_mixed_precision_keeps_squares_in_float32() -> None:
    model, x, y = classifier(hidden=5)
    net = model.net.float()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=2)
    guide = MeanField(model, scale=0.3)
    loss = VariationalLaplaceELBO(FisherProbes(300))(model, guide)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(x.float(), y)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss(x.float(), y), rtol=0.05, atol=0.05)
    half.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in guide.parameters())


def test_learned_scales_of_model_and_prior_train() -> None:
    net = nn.Linear(2, 1)
    model = BNN(net, subset.everything(net), priors.normal(learned(0.8)), likelihoods.normal(learned(0.5)), size=6)
    found = VariationalLaplaceELBO()(model, MeanField(model, scale=0.2))
    found(torch.randn(3, 2), torch.randn(3, 1)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in found.parameters())


PRIORS: dict[str, Any] = {
    "laplace": dist.Laplace(ZERO, 0.7).to_event(1),
    "student-t": dist.StudentT(4.0, ZERO, 0.7).to_event(1),
    "multivariate": dist.MultivariateNormal(ZERO, torch.tensor([[1.0, 0.4], [0.4, 2.0]])),
    "normal": dist.Normal(ZERO, torch.tensor([0.5, 2.0])).to_event(1),
}


@pytest.mark.parametrize("kind", PRIORS)
@pytest.mark.parametrize("full", [False, True], ids=["normal", "multivariate"])
@pytest.mark.parametrize("surrounding", [1.0, 0.5])
def test_priors_of_every_family(kind: str, full: bool, surrounding: float) -> None:
    from statistical import assert_mean

    prior, covariance = PRIORS[kind], torch.tensor([[0.3, 0.1], [0.1, 0.2]])
    spread = dist.MultivariateNormal(ZERO + 0.4, covariance)
    q = spread if full else dist.Normal(ZERO + 0.4, 0.5).to_event(1)

    def model() -> None:
        with poutine.scale(scale=surrounding):
            pyro.sample("w", prior)

    guide = poutine.scale(site(q), surrounding)
    draws = q.sample((20_000,))
    found = torch.stack([loss(guide, model) for _ in range(200 if kind in ("student-t", "laplace") else 2)])
    expected = surrounding * (q.log_prob(draws) - prior.log_prob(draws))
    assert_mean(expected - found.mean(), 0.0) if found.std() < 1e-6 else assert_mean(found, expected.mean())
