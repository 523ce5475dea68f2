"""`MultiplicativeNoise`: its families, KL divergence and moments beside
definitions, limits and draws.
"""

from typing import Any

import pytest
import torch
from conftest import Untouched
from nets import NETS, mlp
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import Predictive
from statistical import assert_mean
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import MeanField, MomentPropagationELBO, MultiplicativeNoise
from bayesnn.guides.common.faster_variances import faster_variances
from bayesnn.guides.multiplicative_noise import PerInput, PerInputVariance, PerWeight
from bayesnn.guides.multiplicative_noise.kl import noise_kl
from bayesnn.guides.multiplicative_noise.squares import squared
from bayesnn.moments import Multiplicative
from bayesnn.predict import gaussian, predict, probit

W = torch.tensor([[0.5, -1, 0.25], [1.5, 0.1, -0.4]], dtype=torch.double)
FAMILIES: dict[str, Any] = {"input": PerInput(), "input variance": PerInputVariance(), "weight": PerWeight()}


def bnn(net: nn.Module, *names: str, likelihood: Any = None, **options: Any) -> BNN:
    chosen = subset.named(net, *names) if names else subset.everything(net)
    return BNN(net, chosen, priors.normal(0.5), likelihood or likelihoods.normal(0.3), **options)


def moved(guide: MultiplicativeNoise) -> MultiplicativeNoise:
    """With means and noise that are not those of the start."""
    with torch.no_grad():
        guide.loc += 0.1 * torch.randn_like(guide.loc)
        guide.raw += torch.randn_like(guide.raw)
    return guide


def kl_of(noise: Tensor, floor: float = 0.0) -> Tensor:
    weight = Multiplicative(W, noise, W.square() + floor**2)
    weight.squares = squared(W, floor, 1, 1)
    return noise_kl("weight", weight, dist.Normal(torch.zeros((), dtype=torch.double), 0.5))


def test_the_divergence_is_the_golden_value() -> None:
    found = kl_of(torch.tensor([0.1, 0.2, 0.05], dtype=torch.double))
    torch.testing.assert_close(found.item(), 13.0329744541, rtol=0, atol=6e-11)


@pytest.mark.parametrize("centre", [0.0, 0.3, -1.2])
def test_the_divergence_from_a_prior_with_a_mean(centre: float) -> None:
    noise = torch.tensor([0.1, 0.2, 0.05], dtype=torch.double)
    weight = Multiplicative(W, noise, W.square())
    weight.squares = squared(W, 0.0, 1, 1)
    prior = dist.Normal(torch.tensor(centre, dtype=torch.double), 0.5)
    q = dist.Normal(W, (noise * W.square()).sqrt())
    exact = torch.distributions.kl_divergence(q, prior.expand(W.shape)).sum()
    torch.testing.assert_close(noise_kl("weight", weight, prior), exact, rtol=1e-12, atol=0)


def test_the_noise_of_the_smallest_divergence() -> None:
    best = 2 / (4 * W.square().sum(0))
    torch.testing.assert_close(best, torch.tensor([0.2, 0.4950495050, 2.2471910112], dtype=torch.double))
    (gradient,) = torch.autograd.grad(kl_of(best.requires_grad_()), best)
    torch.testing.assert_close(gradient, torch.zeros(3, dtype=torch.double), rtol=0, atol=1e-12)


def layers() -> nn.Module:
    """Groups, a transposed convolution, vectors, a normalisation."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 2, groups=2))
    return nn.Sequential(*net, nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prior", ["normal", "fan_in", "around", "learned"])
@pytest.mark.parametrize("part", ["all", "some"])
def test_divergence_and_its_derivatives_are_those_of_the_sites(family: str, prior: str, part: str) -> None:
    net = layers().double()
    some = subset.everything(net) if part == "all" else subset.largest_magnitude(net, 30)
    over = {
        "normal": priors.normal(0.5),
        "fan_in": priors.fan_in(net),
        "around": priors.around(some.take(net), 0.3),
        "learned": priors.normal(learned(0.7)),
    }[prior]
    model = BNN(net, some, over, likelihoods.normal(0.3), name="a")
    guide = moved(MultiplicativeNoise(model, family=FAMILIES[family]))
    trace = poutine.trace(guide).get_trace()
    at_prior = poutine.trace(poutine.replay(model.sample_blocks, trace=trace)).get_trace()
    expected = sum(
        torch.distributions.kl_divergence(
            trace.nodes[site]["fn"].base_dist, _base(at_prior.nodes[site]["fn"]).expand(shape)
        ).sum()
        for site, shape in model.sites.items()
    )
    found = guide.kl()
    torch.testing.assert_close(found, expected)
    leaves = [guide.loc, guide.raw, *model.prior.parameters()]
    for ours, theirs in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def _base(distribution: Any) -> Any:
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    return distribution


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_those_of_the_draws(family: str) -> None:
    model = bnn(layers(), "0.weight", "2", "5.bias")
    guide = moved(MultiplicativeNoise(model, family=FAMILIES[family]))
    with torch.no_grad():
        draws = [guide() for _ in range(3000)]
        for site, moments in guide.moments().items():
            values = torch.stack([draw[site] for draw in draws]).double()
            assert_mean(values, moments.loc.double())
            assert_mean((values - moments.loc.double()).square(), moments.variance.double())


def test_shared_noise_has_the_sharing_of_its_inputs() -> None:
    guide = moved(MultiplicativeNoise(bnn(layers(), "0.weight", "2.weight"), family=PerInput(floor=0.0)))
    with torch.no_grad():
        first, second = ((m.variance / m.loc.square()) for m in guide.moments().values())
    assert guide.raw.numel() == 2 + 4
    # group 0 sees channel 0
    torch.testing.assert_close(first[:2], first[:1, :, :1, :1].expand(2, 1, 3, 3))
    assert (first[0, 0, 0, 0] - first[2, 0, 0, 0]).abs() > 1e-3
    torch.testing.assert_close(second, second[:, :1, :1, :1].expand_as(second))


def test_a_resnet_has_4355_numbers_more_and_trains_a_step(untouched: Untouched) -> None:
    from torchvision.models import resnet18

    net = resnet18(num_classes=10).eval()
    matrices = [name for name, value in net.named_parameters() if value.dim() > 1]
    model = bnn(net, *matrices, likelihood=likelihoods.categorical, size=50_000)
    guide = MultiplicativeNoise(model)
    assert guide.raw.numel() == 4355
    loss = MomentPropagationELBO()(model, guide)
    with untouched(net):
        value = loss(torch.randn(2, 3, 32, 32), torch.tensor([3, 7]))
        value.backward()
    assert guide.loc.grad.isfinite().all()
    assert (guide.raw.grad != 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_output_distribution_of_a_linear_network_is_exact(family: str) -> None:
    model = bnn(nn.Linear(3, 2).double())
    guide, x = moved(MultiplicativeNoise(model, family=FAMILIES[family])), torch.randn(5, 3, dtype=torch.double)
    found = guide.output_distribution(x, chunk=2)
    assert (found.batch_shape, found.event_shape) == ((5,), (2,))
    outputs = predict(guide, x, 5000, model=model)
    assert_mean(outputs, found.mean)
    assert_mean((outputs - found.mean).square(), found.variance)
    torch.testing.assert_close(gaussian(model.likelihood, found).variance, found.variance + 0.09)


def test_the_moment_predictive_is_near_the_drawn_one() -> None:
    """The mean, and about the spread: covariances between units are left out."""
    net = nn.Sequential(nn.Linear(3, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 2)).eval()
    model = bnn(net, "0.weight", "2.weight", "4.weight", likelihood=likelihoods.categorical)
    guide, x = MultiplicativeNoise(model), torch.randn(20, 3)
    found = guide.output_distribution(x)
    outputs = predict(guide, x, 1000, model=model)
    assert ((found.mean - outputs.mean(0)).abs() / outputs.std(0)).median() < 0.25
    assert 0.5 < (found.stddev / outputs.std(0)).median() < 1.1
    torch.testing.assert_close(probit(model.likelihood, found).probs.sum(1), torch.ones(20))


def test_without_noise_it_is_the_network() -> None:
    net, x = mlp(), torch.randn(4, 3)
    guide = MultiplicativeNoise(bnn(net), family=PerInput(noise=1e-14, variance=1e-14))
    torch.testing.assert_close(guide.output_distribution(x).mean, net(x), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("likelihood", ["normal", "categorical"])
def test_dead_weights_count_with_a_finite_number(likelihood: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[2].weight)
    y = torch.zeros(5, 2) if likelihood == "normal" else torch.zeros(5, dtype=torch.long)
    model = bnn(net, likelihood=likelihoods.normal(1.0) if likelihood == "normal" else likelihoods.categorical)
    guide = MultiplicativeNoise(model)
    for x in (torch.randn(5, 3), torch.zeros(5, 3)):
        loss = MomentPropagationELBO()(model, guide)(x, y)
        gradients = torch.autograd.grad(loss, [guide.loc, guide.raw])
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_half_precision_network() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).half().eval()
    model, x = bnn(net), torch.full((5, 3), 300.0).half()
    guide = MultiplicativeNoise(model)
    assert guide.loc.dtype == torch.float32
    found = guide.output_distribution(x)
    assert found.mean.dtype == torch.float32
    assert found.variance.isfinite().all()
    assert all(value.dtype == torch.float16 for value in guide().values())
    assert guide.kl().isfinite()


def test_predictive_and_embeddings() -> None:
    net, x = NETS["embedding"]()
    model = bnn(net, likelihood=likelihoods.categorical)
    guide = MultiplicativeNoise(model)
    assert guide.raw.numel() == 7 + 3 + 1
    assert guide.output_distribution(x).variance.gt(0).all()
    assert Predictive(model, guide=guide, num_samples=3)(x)["y"].shape == (3, 3)


def test_draws_go_to_arviz() -> None:
    from bayesnn.arviz import to_arviz

    model = bnn(mlp())
    exported = to_arviz(MultiplicativeNoise(model), torch.randn(5, 3), torch.randn(5, 2), model=model, draws=20)
    assert exported["posterior"]["0.weight"].shape == (1, 20, 4, 3)
    assert exported["log_likelihood"]["y"].shape == (1, 20, 5)


def test_bad_input() -> None:
    net = mlp()
    with pytest.raises(TypeError, match="the model must be a BNN, not a function"):
        MultiplicativeNoise(lambda x: x)
    latent = BNN(net, subset.everything(net), priors.normal(dist.HalfCauchy(1.0)), likelihoods.normal(1.0))
    with pytest.raises(ValueError, match=r"the prior's scale '0.weight_scale' is latent"):
        MultiplicativeNoise(latent)
    with pytest.raises(ValueError, match="variances start at positive numbers"):
        MultiplicativeNoise(bnn(net), family=PerWeight(0.0))
    guide = MultiplicativeNoise(bnn(net))
    with pytest.raises(ValueError, match="belongs to another network, subset or model"):
        guide.load_state_dict(MultiplicativeNoise(bnn(net), family=PerWeight()).state_dict())
    with pytest.raises(ValueError, match="x is not finite"):
        guide.output_distribution(torch.full((2, 3), torch.nan))
    with pytest.raises(TypeError, match="moments need a BNN and a MultiplicativeNoise guide"):
        MomentPropagationELBO()(bnn(net), MeanField(bnn(net)))(torch.zeros(2, 3), torch.zeros(2, 2))
    other = BNN(net, subset.everything(net), priors.laplace(1.0), likelihoods.normal(1.0))
    with pytest.raises(ValueError, match=r"the prior of '0.weight' is Laplace"):
        MultiplicativeNoise(other).kl()


def test_its_variances_can_learn_faster() -> None:
    loss, groups = MomentPropagationELBO(), faster_variances(0.01)
    model = bnn(mlp())
    found = {name: groups(name, p) for name, p in loss(model, MultiplicativeNoise(model)).named_parameters()}
    assert found == {"guide.loc": {}, "guide.raw": {"lr": pytest.approx(0.1)}}
