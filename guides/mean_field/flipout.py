"""Flipout: one perturbation of the weights for a batch, with random signs for every example."""

import math

import torch
from torch import Tensor

from bayesnn.guides.mean_field.layer_noise_elbo import LayerNoiseELBO
from bayesnn.guides.mean_field.layer_noise_rules import Product


class FlipoutELBO(LayerNoiseELBO):
    """The `MeanFieldELBO` of a `MeanField` guide, with draws of the weights that differ in their
    signs by example.

        s_i = F(x_i; m) + r_i * F(x_i * q_i; s * e),
            e ~ N(0, I) once a batch, r_i and q_i random signs

    F is linear or a convolution, r_i has a sign for every unit and q_i for every input. Every
    example so has weights m + s * e * r_i q_i^T, of exactly the guide's distribution in every
    layer type: the same loss in expectation as `MeanFieldELBO`, with gradients of less variance,
    since the perturbations of different examples are uncorrelated. Biases are perturbed with the
    weights; scales of normalisations are drawn for every example.

    A parameter that is used otherwise (LSTM, attention, embedding) or twice (tied weights) is
    drawn once for a batch, as by `MeanFieldELBO`, and named in the log; so is a layer whose first
    axis is not the batch beyond doubt, for that call. Entries that are not random have s = 0. The
    KL divergence is `MeanFieldELBO`'s, nats. The network is not written to: a function mode
    replaces what its layers compute.

    Args:
        num_particles: passes in one step.
        kl_weight: as of `MeanFieldELBO`.

    Shapes: x [batch, ...]; r [batch, out], q [batch, in] of a layer, one sign for all positions.

    Raises:
        TypeError: a guide that is no `MeanField`, or a model that is no `BNN`.
        ValueError: a network in training mode; no targets; what `MeanFieldELBO` refuses.

    Reference: Wen, Vicol, Ba, Tran, Grosse (2018), Flipout: efficient pseudo-independent weight
    perturbations on mini-batches.

    >>> from torch import nn
    >>> from bayesnn import BNN, likelihoods, priors, subset
    >>> from bayesnn.guides import MeanField
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=20)
    >>> loss = FlipoutELBO()(model, MeanField(model))
    >>> bool(loss(torch.zeros(2, 1, 4, 4), torch.tensor([0, 2])) > 0)
    True
    """

    def _noise(self, layer: Product) -> Tensor:
        weight = torch.randn_like(layer.weight) * layer.weight
        bias = None if layer.bias is None else torch.randn_like(layer.bias) * layer.bias
        if math.prod(layer.lead) == 1:
            return layer.mean + layer.multiply(layer.x, weight, bias)
        turned = layer.multiply(layer.x * _signs(layer.x, layer.per_channel(layer.x)), weight, bias)
        return torch.addcmul(layer.mean, turned, _signs(turned, layer.per_channel(turned)))


def _signs(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """-1 or 1 with probability 1/2: one random byte each, at a third of the time of a draw."""
    count = math.prod(shape)
    integers = torch.empty(-(-count // 8), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return (integers.view(torch.int8)[:count] & 2).to(like.dtype).sub_(1).reshape(shape)
