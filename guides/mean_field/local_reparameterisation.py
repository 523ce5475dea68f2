"""Local reparameterisation: noise of the layers' outputs in the place of noise of the weights."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesnn.guides.mean_field.layer_noise_elbo import LayerNoiseELBO
from bayesnn.guides.mean_field.layer_noise_rules import Product, bias_noise


class LocalReparameterisationELBO(LayerNoiseELBO):
    """The `MeanFieldELBO` of a `MeanField` guide, with own noise of every example drawn at the
    outputs of the layers.

        s_i = F(x_i; m) + sqrt(F(x_i^2; s^2)) * e_i,    e_i ~ N(0, I),    F linear or a convolution

    For a linear layer that is what own weights w_i ~ N(m, s^2) of every example give: the same
    loss in expectation, with gradients of less variance, since the examples' noises average out.
    In a convolution, and where a linear layer serves several positions of an example (words),
    every position has the right mean and variance and independent noise, which leaves out the
    correlation of positions that share their weights: the usual form, an approximation;
    `FlipoutELBO` has none. Biases of convolutions and scales of normalisations are drawn for every
    example.

    A parameter that is used otherwise (LSTM, attention, embedding) or twice (tied weights) is
    drawn once for a batch, as by `MeanFieldELBO`, and named in the log. Entries that are not
    random have s = 0. The KL divergence is `MeanFieldELBO`'s, nats. The network is not written to:
    a function mode replaces what its layers compute.

    Args:
        num_particles: passes in one step.
        kl_weight: as of `MeanFieldELBO`.

    Shapes: x [batch, ...]; s of a layer [batch, ..., out] or [batch, out, ...].

    Raises:
        TypeError: a guide that is no `MeanField`, or a model that is no `BNN`.
        ValueError: a network in training mode; no targets; what `MeanFieldELBO` refuses.

    Reference: Kingma, Salimans, Welling (2015), Variational dropout and the local
    reparameterization trick.

    >>> from torch import nn
    >>> from bayesnn import BNN, likelihoods, priors, subset
    >>> from bayesnn.guides import MeanField
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(0.1), size=20)
    >>> loss = LocalReparameterisationELBO()(model, MeanField(model))
    >>> bool(loss(torch.zeros(5, 3), torch.zeros(5, 1)) > 0)
    True
    """

    def _noise(self, layer: Product) -> Tensor:
        shift = layer.bias
        # no position but the example: one variance with the bias
        of_rows = layer.channel == -1 and layer.x.dim() == 2
        variance = layer.multiply(
            layer.x.square(), layer.weight.square(), shift.square() if shift is not None and of_rows else None
        )
        out: Tensor = _Noisy.apply(layer.mean, variance)
        return out if shift is None or of_rows else out.add_(bias_noise(shift, layer.lead, out))


class _Noisy(torch.autograd.Function):
    """mean + sqrt(variance) * e; without derivative in a variance of 0, where that of the root is
    infinite.

    One saved tensor and one product on the way back: with autograd's own formulas a LeNet step
    takes a twentieth more.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, variance: Tensor) -> Tensor:
        """The draw, from three tensors of one shape."""
        inverse = variance.rsqrt().nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        slope = torch.empty_like(variance).normal_(std=0.5).mul_(inverse)  # e / (2 deviation)
        ctx.save_for_backward(slope)
        return torch.addcmul(mean, variance, slope, value=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients in the mean and in the variance."""
        (slope,) = ctx.saved_tensors
        return gradient, gradient * slope
