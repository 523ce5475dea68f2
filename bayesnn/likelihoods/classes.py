"""Likelihoods of labels."""

import math
from collections.abc import Callable

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from bayesnn.likelihoods.bridge import log_concentration
from bayesnn.likelihoods.expectations import variances
from bayesnn.likelihoods.scores import IndependentOutputs, bernoulli_logit
from bayesnn.likelihoods.softmax import softmax_fisher, softmax_fisher_root
from bayesnn.moments import Moments, elementwise_moments

_log_sigmoid = elementwise_moments(F.logsigmoid)


class Categorical(nn.Module):
    """y ~ Categorical(softmax(f)): outputs [*draw, batch, class] are logits, y [batch] are labels
    0 ... class - 1.
    """

    @override
    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=outputs)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(p) - p p^T."""
        return softmax_fisher(outputs)

    def fisher_root(self, outputs: Tensor) -> Tensor:
        """The Cholesky factor of diag(p) - p p^T, [batch, class, class - 1]."""
        return softmax_fisher_root(outputs)

    def expected_log_prob_by(
        self, rule: Callable[[Tensor, Tensor, Tensor], Tensor], mean: Tensor, variance: Tensor, y: Tensor
    ) -> Tensor:
        """E[log softmax(f)_y] by the rule."""
        return rule(mean, variance, y)

    def probit_predictive(self, mean: Tensor, variance: Tensor) -> dist.TorchDistribution:
        """softmax(mean / sqrt(1 + pi/8 V))."""
        _check_classes(mean)
        return self(_shrunk(mean, variance))

    def bridge_predictive(self, mean: Tensor, covariance: Tensor, *, normalised: bool) -> dist.TorchDistribution:
        """alpha / sum alpha of the Laplace bridge."""
        _check_classes(mean)
        precision = torch.finfo(mean.dtype).eps
        logits = log_concentration(mean.double(), covariance.double(), precision, normalised=normalised)
        return self(logits.to(mean.dtype))


class PixelwiseCategorical(nn.Module):
    """One label a pixel: outputs [*draw, batch, class, height, width], y [batch, height, width]; a
    map is one event.
    """

    @override
    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=outputs.movedim(-3, -1)).to_event(2)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(p) - p p^T at each pixel, over the flattened outputs: [batch, out, out],
        out = class * height * width.

        For small maps: its size is the square of theirs.
        """
        return _blocks(softmax_fisher(outputs.flatten(2).mT))

    def fisher_root(self, outputs: Tensor) -> Tensor:
        """The Cholesky factor of diag(p) - p p^T at each pixel.

        Its shape is [batch, class * height * width, (class - 1) * height * width].
        """
        return _blocks(softmax_fisher_root(outputs.flatten(2).mT))


class Bernoulli(IndependentOutputs):
    """y ~ Bernoulli(sigmoid(f)): outputs [*draw, batch, out] are logits, y
    [batch, out] is 0.0 or 1.0.
    """

    @override
    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=outputs).to_event(1)

    def score_deviation(self, outputs: Tensor) -> Tensor:
        """sqrt(p (1 - p))."""
        return bernoulli_logit(outputs)

    def expected_log_prob(self, mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
        """sum_k E[log sigmoid((2 y_k - 1) f_k)], each by quadrature in one dimension."""
        return _log_sigmoid(Moments((2 * y - 1) * mean, variances(mean, variance))).loc.sum(-1)

    def probit_predictive(self, mean: Tensor, variance: Tensor) -> dist.TorchDistribution:
        """sigmoid(mean / sqrt(1 + pi/8 V))."""
        return self(_shrunk(mean, variance))


categorical = Categorical()
pixelwise_categorical = PixelwiseCategorical()
bernoulli = Bernoulli()


def _shrunk(mean: Tensor, variance: Tensor) -> Tensor:
    return mean / (1 + math.pi / 8 * variance).sqrt()


def _check_classes(mean: Tensor) -> None:
    if mean.shape[-1] < 2:
        raise ValueError(
            "likelihoods.categorical: one output is one class; for a binary target use likelihoods.bernoulli"
        )


def _blocks(each: Tensor) -> Tensor:
    """[batch, row * pixel, column * pixel] of matrices
    [batch, pixel, row, column], one for each pixel.
    """
    batch, pixels, rows, columns = each.shape
    whole = each.new_zeros(batch, rows, pixels, columns, pixels)
    place = torch.arange(pixels, device=each.device)
    whole[:, :, place, :, place] = each.movedim(1, 0)
    return whole.reshape(batch, rows * pixels, columns * pixels)
