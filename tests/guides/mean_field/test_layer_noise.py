"""The noise that every example meets in the layers: moments, what is shared, what has none."""

import logging
from typing import Any

import pyro
import pytest
import torch
from conftest import Untouched
from layer_noise_problems import both, guided, loss_and_gradient
from nets import NETS
from statistical import assert_mean
from torch import nn
from torch.nn import functional as F

from bayesnn import subset
from bayesnn.guides import FlipoutELBO, LocalReparameterisationELBO
from bayesnn.guides.mean_field.layer_noise import layer_noise_outputs
from bayesnn.guides.mean_field.layer_noise_tensors import NormalTensor
from bayesnn.moments import propagate_moments
from bayesnn.moments.value import Moments


@both
def test_moments_of_a_linear_layer(elbo: Any) -> None:
    """Means, variances, and no correlation: of units, nor of examples."""
    net, x = nn.Linear(3, 2), torch.randn(2, 3)
    model, _ = guided(net)
    normals = {name: NormalTensor(p.detach(), 0.1 + torch.rand_like(p)) for name, p in net.named_parameters()}
    draws = torch.stack([layer_noise_outputs(model, normals, x, elbo()._noise) for _ in range(2000)])
    mean = F.linear(x, normals["weight"].loc, normals["bias"].loc)
    variance = F.linear(x**2, normals["weight"].scale ** 2, normals["bias"].scale ** 2)
    centred = (draws - mean).flatten(1)
    assert_mean(draws, mean)
    assert_mean(centred[:, :, None] * centred[:, None], torch.diag(variance.flatten()))


@both
@pytest.mark.parametrize("kind", ["conv1d", "conv3d", "transposed"])
def test_moments_of_convolutions(elbo: Any, kind: str) -> None:
    """Every position has the mean and variance that its weights give it;
    moments by the other engine.
    """
    layer: nn.Module
    if kind == "conv1d":
        layer, x = nn.Conv1d(2, 4, 2, stride=2, padding=1, groups=2), torch.randn(2, 2, 3)
    elif kind == "conv3d":
        layer, x = nn.Conv3d(1, 2, 2, dilation=2), torch.randn(2, 1, 3, 3, 4)
    else:
        layer, x = nn.ConvTranspose2d(2, 1, 2), torch.randn(2, 2, 2, 2)
    model, _ = guided(layer)
    normals = {name: NormalTensor(p.detach(), 0.1 + torch.rand_like(p)) for name, p in layer.named_parameters()}
    draws = torch.stack([layer_noise_outputs(model, normals, x, elbo()._noise) for _ in range(1000)])
    exact = propagate_moments(layer, {name: Moments(n.loc, n.scale**2) for name, n in normals.items()}, x)
    assert_mean(draws, exact.loc)
    assert_mean((draws - exact.loc) ** 2, exact.variance)


NORMALISATIONS: dict[str, Any] = {
    "batch": (nn.BatchNorm1d(3).eval(), (2, 3, 2), (3, 1)),
    "group": (nn.GroupNorm(1, 3), (2, 3, 2), (3, 1)),
    "layer": (nn.LayerNorm(3), (2, 4, 3), (3,)),
}


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_moments_of_normalisations(kind: str) -> None:
    """Scale and shift are drawn once for every example: positions share them, examples do not."""
    layer, shape, spread = NORMALISATIONS[kind]
    x = torch.randn(*shape)
    base = layer(x).detach()  # scale 1, shift 0
    model, _ = guided(layer)
    normals = {name: NormalTensor(p.detach(), 0.1 + torch.rand_like(p)) for name, p in layer.named_parameters()}
    draws = torch.stack([layer_noise_outputs(model, normals, x, FlipoutELBO()._noise) for _ in range(1000)])
    scale, shift = (normals[name].scale.reshape(spread) ** 2 for name in ("weight", "bias"))
    centred = draws - base
    assert_mean(draws, base)
    positions = 1 if kind == "layer" else 2
    assert_mean(centred * centred.roll(1, 1 + positions), base * base.roll(1, positions) * scale + shift)
    assert_mean(centred**2, base**2 * scale + shift)
    assert_mean(centred[:, 0] * centred[:, 1], 0.0)


def test_flipout_keeps_the_covariance_of_positions() -> None:
    """Positions of one example share its weights; local reparameterisation leaves that out."""
    layer, x = nn.Conv1d(1, 1, 1), torch.tensor([[[1.0, 2.0]]]).repeat(2, 1, 1)
    model, _ = guided(layer)
    one = torch.tensor(1.0)
    normals = {name: NormalTensor(p.detach(), one.expand_as(p)) for name, p in layer.named_parameters()}
    for elbo, covariance in ((FlipoutELBO, 3.0), (LocalReparameterisationELBO, 1.0)):
        draws = torch.stack([layer_noise_outputs(model, normals, x, elbo()._noise) for _ in range(2000)])
        centred = draws - layer(x).detach()
        assert_mean(centred[:, :, 0, 0] * centred[:, :, 0, 1], covariance)
        assert_mean(centred[:, 0, 0, 0] * centred[:, 1, 0, 0], 0.0)


@both
def test_entries_that_are_not_random_have_no_noise(elbo: Any) -> None:
    """A row without a random entry is the network's, and its gradients are
    finite although its variance is 0.
    """
    net = nn.Linear(3, 2)
    rows = torch.tensor([0, 2])  # of the first unit
    chosen = subset.Subset({"weight": net.weight.shape, "bias": net.bias.shape}, {"weight": rows})
    model, guide = guided(net, chosen=chosen)
    x, y = torch.randn(3, 3), torch.tensor([0, 1, 1])
    assert loss_and_gradient(elbo(), model, guide, x, y).isfinite().all()
    scale = torch.zeros(2, 3).index_put((torch.tensor([0, 0]), rows), torch.tensor(0.3))
    normals = {"weight": NormalTensor(net.weight.detach(), scale)}
    difference = layer_noise_outputs(model, normals, x, elbo()._noise) - net(x).detach()
    assert (difference[:, 0] != 0).all()
    assert (difference[:, 1] == 0).all()


SHARED = {
    "mlp": "",
    "tied": "encoder.weight",
    "lstm": "lstm.bias_hh_l0, lstm.bias_ih_l0, lstm.weight_hh_l0, lstm.weight_ih_l0",
    "embedding": "embedding.weight",
    "temperature": "temperature",
    "tuple": "",
    "dict": "",
    "encoder": "layer.self_attn",
}


@both
@pytest.mark.parametrize("kind", SHARED)
def test_other_uses_are_drawn_once_and_named(
    kind: str, elbo: Any, untouched: Untouched, caplog: pytest.LogCaptureFixture
) -> None:
    net, x = NETS[kind]()
    model, guide = guided(net)
    values = []
    with untouched(net), caplog.at_level(logging.INFO):
        # the pass that finds them out uses up no random numbers: fit replays bit for bit
        for _ in range(2):
            pyro.set_rng_seed(1)
            values.append(loss_and_gradient(elbo(), model, guide, x, torch.tensor([0, 1, 1])))
    assert torch.equal(*values)
    assert values[0].isfinite().all()
    assert len(caplog.messages) == bool(SHARED[kind])
    assert SHARED[kind] in "".join(caplog.messages)
