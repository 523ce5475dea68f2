"""Families of the random effect beta, with the distribution of a response, beta integrated out."""

import math
from typing import Protocol

from pyro import distributions as dist
from torch import Tensor

from bayesnn.distributions import (
    CauchyBernoulli,
    NormalBernoulli,
    NormalStudentT,
    StudentTBernoulli,
    StudentTCategorical,
    Voigt,
)


class Effect(Protocol):
    """The distribution of the linear predictor eta = location + scale e, and of a response to it.

    `outputs` are [..., 2] (location, scale) for binary and [..., 3] (location, scale, sigma) for
    continuous responses. For labels they are [..., 2 + class]: delta, gamma, and the centred
    logits c that beta multiplies.
    """

    def continuous(self, outputs: Tensor) -> dist.TorchDistribution:
        """The distribution of y = eta + sigma N(0, 1), one number for each example."""
        ...

    def binary(self, outputs: Tensor) -> dist.TorchDistribution:
        """The distribution of y ~ Bernoulli(expit(eta))."""
        ...

    def categorical(self, outputs: Tensor) -> dist.TorchDistribution:
        """The distribution of y ~ Categorical(softmax(beta c))."""
        ...


class CauchyEffect:
    """beta ~ Cauchy(delta, gamma), as published: y is Voigt, or Bernoulli of a
    logit with a Cauchy density.
    """

    def continuous(self, outputs: Tensor) -> dist.TorchDistribution:
        """Voigt(location, sigma, scale)."""
        location, scale, sigma = outputs.unbind(-1)
        return Voigt(location, sigma, scale, validate_args=False)

    def binary(self, outputs: Tensor) -> dist.TorchDistribution:
        """CauchyBernoulli(location, scale)."""
        return CauchyBernoulli(*outputs.unbind(-1), validate_args=False)

    def categorical(self, outputs: Tensor) -> dist.TorchDistribution:
        """StudentTCategorical(1, c, delta, gamma): ours, not in the paper."""
        return _categorical(1.0, outputs)


class NormalEffect:
    """beta ~ N(delta, gamma^2), for comparison; it is not the published method."""

    def continuous(self, outputs: Tensor) -> dist.TorchDistribution:
        """N(location, scale^2 + sigma^2)."""
        location, scale, sigma = outputs.unbind(-1)
        return dist.Normal(location, (scale.square() + sigma.square()).sqrt(), validate_args=False)

    def binary(self, outputs: Tensor) -> dist.TorchDistribution:
        """NormalBernoulli(location, scale)."""
        return NormalBernoulli(*outputs.unbind(-1), validate_args=False)

    def categorical(self, outputs: Tensor) -> dist.TorchDistribution:
        """StudentTCategorical(infinity, c, delta, gamma)."""
        return _categorical(math.inf, outputs)


class StudentTEffect:
    """beta = delta + gamma t, where t has `df` degrees of freedom.

    It lies between the other two and is not the published method.
    """

    def __init__(self, df: float = 4.0) -> None:
        if not df > 0:
            raise ValueError(f"StudentTEffect: degrees of freedom are positive, not {df}")
        self.df = float(df)

    def continuous(self, outputs: Tensor) -> dist.TorchDistribution:
        """NormalStudentT(df, location, sigma, scale)."""
        location, scale, sigma = outputs.unbind(-1)
        return NormalStudentT(self.df, location, sigma, scale, validate_args=False)

    def binary(self, outputs: Tensor) -> dist.TorchDistribution:
        """StudentTBernoulli(df, location, scale)."""
        return StudentTBernoulli(self.df, *outputs.unbind(-1), validate_args=False)

    def categorical(self, outputs: Tensor) -> dist.TorchDistribution:
        """StudentTCategorical(df, c, delta, gamma)."""
        return _categorical(self.df, outputs)


def _categorical(df: float, outputs: Tensor) -> dist.TorchDistribution:
    return StudentTCategorical(df, outputs[..., 2:], outputs[..., 0], outputs[..., 1], validate_args=False)
