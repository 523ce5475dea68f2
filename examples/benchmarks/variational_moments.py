"""Predictions by moments beside predictions by draws of the weights: 1,000
inputs, the same guide.
"""

from collections.abc import Callable

import torch
from torch import nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import MultiplicativeNoise
from bayesnn.predict import predict

from examples.benchmarks.core import DRAWS, NETS, Row
from examples.benchmarks.timing import Action, interleaved, row


def _vision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        """torchvision's, its normalisations at the statistics of noise: without, MobileNet's
        outputs are 1e-10.
        """
        import torchvision

        net: nn.Module = getattr(torchvision.models, name)(num_classes=10)
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0
            net(torch.randn(64, 3, 32, 32))
        return net

    return make


LARGE = {
    "ResNet-18, 32 x 32": (_vision("resnet18"), (3, 32, 32)),
    "MobileNet-v2, 32 x 32": (_vision("mobilenet_v2"), (3, 32, 32)),
}


def predictions(name: str, repeats: int, inputs: int) -> list[Row]:
    """The outputs' means and variances: one pass of moments, or 32 draws."""
    make, shape = {**NETS, **LARGE}[name]
    net, parts = make().eval(), torch.rand(inputs, *shape).split(50)
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=1_000)
    guide = MultiplicativeNoise(model)
    x = torch.cat(parts)

    def plain() -> None:
        with torch.no_grad():
            torch.cat([net(part) for part in parts])

    actions: dict[str, Action] = {
        "plain": plain,
        "MultiplicativeNoise, moments": lambda: guide.output_distribution(x, chunk=50),
        "MultiplicativeNoise, 32 draws": lambda: predict(guide, x, DRAWS, chunk=50),
    }
    times = interleaved(actions, repeats, f"predictions, {name}")
    bounds = {"MultiplicativeNoise, moments": "6" if name.startswith("MobileNet") else "3.5"}
    return [row(f"{name}: {inputs:,} inputs, {action}", times, action, bounds.get(action, "")) for action in actions]
