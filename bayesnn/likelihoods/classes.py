"""Likelihoods of labels."""

import math

import torch
from pyro import distributions as dist
from torch import Tensor, nn


class Categorical(nn.Module):
    """y ~ Categorical(softmax(f)): outputs [*draw, batch, class] are logits, y [batch] are labels 0 ... class - 1."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """p(y | outputs)."""
        return dist.Categorical(logits=outputs)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(p) - p p^T."""
        p = outputs.softmax(-1)
        products = p.unsqueeze(-1) * p.unsqueeze(-2)
        products.diagonal(dim1=-2, dim2=-1).zero_()
        # p (1 - p) as a sum over the other classes: 1 - p has no digits where the network is certain.
        return torch.diag_embed(products.sum(-1)) - products


class PixelwiseCategorical(nn.Module):
    """One label a pixel: outputs [*draw, batch, class, height, width], y [batch, height, width]; a map is one event."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """p(y | outputs)."""
        return dist.Categorical(logits=outputs.movedim(-3, -1)).to_event(2)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(p) - p p^T at each pixel, over the flattened outputs: [batch, out, out], out = class * height * width.

        For small maps: its size is the square of theirs.
        """
        batch, classes, *size = outputs.shape
        pixels = math.prod(size)
        each = categorical.fisher(outputs.flatten(2).mT)  # [batch, pixel, class, class]
        whole = outputs.new_zeros(batch, classes, pixels, classes, pixels)
        place = torch.arange(pixels, device=outputs.device)
        whole[:, :, place, :, place] = each.movedim(1, 0)
        return whole.reshape(batch, classes * pixels, classes * pixels)


class Bernoulli(nn.Module):
    """y ~ Bernoulli(sigmoid(f)): outputs [*draw, batch, out] are logits, y [batch, out] is 0.0 or 1.0."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """p(y | outputs)."""
        return dist.Bernoulli(logits=outputs).to_event(1)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(p (1 - p))."""
        p = outputs.sigmoid()
        return torch.diag_embed(p * (1 - p))


categorical = Categorical()
pixelwise_categorical = PixelwiseCategorical()
bernoulli = Bernoulli()
