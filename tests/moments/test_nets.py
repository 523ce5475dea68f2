"""Moments through torchvision's networks, which know nothing of them."""

from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from conftest import Untouched
from nets import NETS
from torch import Tensor, nn

from bayesnn.guides.multiplicative_noise import PerInput
from bayesnn.guides.multiplicative_noise.families import layout
from bayesnn.moments import Moments, propagate_moments

VISION = ("resnet18", "vgg11", "densenet121", "mobilenet_v2", "googlenet", "squeezenet1_1")


@lru_cache(maxsize=1)
def vision(name: str) -> nn.Module:
    """torchvision's, its normalisations at the statistics of data: without,
    MobileNet's outputs are 1e-10.
    """
    import torchvision

    torch.manual_seed(0)
    net: nn.Module = getattr(torchvision.models, name)(num_classes=10).requires_grad_(requires_grad=False)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.train().momentum = 1.0
        net(torch.randn(16, 3, 32, 32))
    return net.eval()


REFUSED = {
    "lstm": "lstm at 'lstm' .LSTM.",
    "attention": "attention",
    "encoder": "attention",
    "temperature": "div at Temperature, nets.py:",
}


def random_weights(net: nn.Module, noise: float, least: int = 2) -> dict[str, Tensor]:
    """Every parameter of at least so many axes with variance noise * w^2."""
    held = {name: value.detach() for name, value in net.named_parameters() if value.dim() >= least}
    return {name: Moments(value, noise * value.square()) for name, value in held.items()}


def noisy_inputs(net: nn.Module, noise: float) -> dict[str, Tensor]:
    """Every parameter under multiplicative noise of its inputs, vectors with that variance."""
    family, held = PerInput(noise=noise, variance=noise, floor=0.0), dict(net.named_parameters())
    layouts = {name: layout(net, name, None) for name in held}
    return {name: family.moments(of, held[name], family.start(of)) for name, of in layouts.items()}


@pytest.mark.parametrize("random", [random_weights, noisy_inputs], ids=["per weight", "per input"])
@pytest.mark.parametrize("name", VISION)
@pytest.mark.filterwarnings("ignore:.*googleNet:FutureWarning")
def test_without_noise_the_mean_is_the_network(name: str, random: Callable[..., dict[str, Tensor]]) -> None:
    net, size = vision(name), 64 if name == "squeezenet1_1" else 32
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = net(x)
        found = propagate_moments(net, random(net, 1e-20), x)
    assert expected.norm() > 0.1
    assert (found.loc - expected).norm() <= 1e-5 * expected.norm()
    assert (found.variance <= 1e-12 * expected.square().max()).all()


def test_the_network_is_not_touched(untouched: Untouched) -> None:
    net = vision("resnet18")
    with untouched(net), torch.no_grad():
        propagate_moments(net, random_weights(net, 0.01), torch.randn(3, 3, 32, 32), chunk=2)


@pytest.mark.parametrize("name", ["mlp", "conv", "batch_norm", "embedding", "tuple", "dict"])
def test_without_noise_every_parameter_included(name: str) -> None:
    net, x = NETS[name]()
    with torch.no_grad():
        found = propagate_moments(net, random_weights(net, 1e-20, least=0), x)
        expected = net(**x) if isinstance(x, dict) else net(*x) if isinstance(x, tuple) else net(x)
    torch.testing.assert_close(found.loc, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_multiply_random_tensors_are_refused(name: str) -> None:
    net, x = NETS[name]()
    with pytest.raises(NotImplementedError, match=f"moments: .*{REFUSED[name]}.* has no rule"):
        propagate_moments(net, random_weights(net, 0.01, least=0), x)


def test_a_deterministic_body_costs_nothing_and_is_exact() -> None:
    """A random last layer: the moments are those of a linear layer on the body's features."""
    net = vision("resnet18")
    x, weight = torch.randn(2, 3, 32, 32), torch.rand(10, 512)
    found = propagate_moments(net, {"fc.weight": Moments(net.fc.weight, weight)}, x)
    features = nn.Sequential(*list(net.children())[:-1])(x).flatten(1)
    torch.testing.assert_close(found.loc, net(x))
    torch.testing.assert_close(found.variance, features.square() @ weight.T)


def test_linear_networks_are_exact_in_the_mean_and_the_last_variance() -> None:
    """Two linear layers: E f is that of the means; Var f from the law of total variance with
    independent units.
    """
    net = (
        nn.Sequential(nn.Linear(3, 5, bias=False), nn.Linear(5, 2, bias=False))
        .double()
        .requires_grad_(requires_grad=False)
    )
    x = torch.randn(4, 3, dtype=torch.double)
    first, second = (torch.rand_like(layer.weight) for layer in net)
    found = propagate_moments(
        net, {"0.weight": Moments(net[0].weight, first), "1.weight": Moments(net[1].weight, second)}, x
    )
    hidden, spread = net[0](x), x.square() @ first.T
    torch.testing.assert_close(found.loc, net(x))
    expected = (hidden.square() + spread) @ second.T + spread @ net[1].weight.square().T
    torch.testing.assert_close(found.variance, expected)
