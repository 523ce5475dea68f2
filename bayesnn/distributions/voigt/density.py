"""The log density of a Voigt distribution with its gradient in closed form."""

import math
from typing import Any

import torch
from torch import Tensor

from bayesnn.distributions.voigt.faddeeva import faddeeva, voigt_function

TINY = 1e-290
"""Where the Voigt function is smaller, it is that of the normal distribution: gamma is 0."""
FAR = 1e100
"""Bounds |y - loc| / sigma, so that squares are finite where y is not."""
STEEPEST = 1e30
"""Bounds the slope in gamma, which overflows where gamma = 0 far from the
centre: inf * 0 would be NaN.
"""


def log_density(deviation: Tensor, sigma: Tensor, gamma: Tensor) -> Tensor:
    """log p = log Re w(z) - log(sigma sqrt(2 pi)), z = (deviation + i gamma) / (sigma sqrt 2).

    All tensors are double and of one shape.
    """
    return _LogDensity.apply(deviation, sigma, gamma)


def argument(deviation: Tensor, sigma: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """The real and the imaginary part of z."""
    return (deviation / (sigma * math.sqrt(2))).clamp(-FAR, FAR), gamma / (sigma * math.sqrt(2))


class _LogDensity(torch.autograd.Function):
    """The slope in sigma comes from the heat equation dp/dsigma = sigma d^2 p/dy^2.

    By the chain rule through z it would be a difference that cancels like |z|^2.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(deviation: Tensor, sigma: Tensor, gamma: Tensor) -> Tensor:
        x, y = argument(deviation, sigma, gamma)
        value = voigt_function(x, y)
        log_value = torch.where(value < TINY, -(x**2), value.clamp(min=TINY).log())
        log_value = torch.where(deviation.isinf(), -torch.inf, log_value)
        return log_value - sigma.log() - math.log(2 * math.pi) / 2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, sigma, _ = ctx.saved_tensors
        x, y = argument(*ctx.saved_tensors)
        w, slope, curvature = faddeeva(x, y, 2)
        normal, value = w.real < TINY, w.real.clamp(min=TINY)
        in_x = torch.where(normal, -2 * x, slope.real / value)
        in_y = (-slope.imag / value).clamp(max=STEEPEST)
        twice_in_x = torch.where(normal, 4 * x**2 - 2, curvature.real / value)
        width = sigma * math.sqrt(2)
        return gradient * in_x / width, gradient * twice_in_x / (2 * sigma), gradient * in_y / width
