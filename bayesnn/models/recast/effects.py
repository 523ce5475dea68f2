"""Families of the random effect beta: what a response's distribution is once beta is integrated out."""

from typing import Protocol

from pyro import distributions as dist
from torch import Tensor

from bayesnn.distributions import CauchyBernoulli, NormalBernoulli, NormalStudentT, Voigt


class Effect(Protocol):
    """Distribution of the linear predictor eta = location + scale e, and of a response to it.

    `outputs` are [..., 2] (location, scale) for binary and [..., 3] (location, scale, sigma) for continuous responses.
    """

    def continuous(self, outputs: Tensor) -> dist.TorchDistribution:
        """Of y = eta + sigma N(0, 1), one number each."""
        ...

    def binary(self, outputs: Tensor) -> dist.TorchDistribution:
        """Of y ~ Bernoulli(expit(eta))."""
        ...


class CauchyEffect:
    """beta ~ Cauchy(delta, gamma), as published: y is Voigt, or Bernoulli of a logit with a Cauchy density."""

    def continuous(self, outputs: Tensor) -> dist.TorchDistribution:
        """Voigt(location, sigma, scale)."""
        location, scale, sigma = outputs.unbind(-1)
        return Voigt(location, sigma, scale, validate_args=False)

    def binary(self, outputs: Tensor) -> dist.TorchDistribution:
        """CauchyBernoulli(location, scale)."""
        return CauchyBernoulli(*outputs.unbind(-1), validate_args=False)


class NormalEffect:
    """beta ~ N(delta, gamma^2): what a reviewer compares with; not the published method."""

    def continuous(self, outputs: Tensor) -> dist.TorchDistribution:
        """N(location, scale^2 + sigma^2)."""
        location, scale, sigma = outputs.unbind(-1)
        return dist.Normal(location, (scale.square() + sigma.square()).sqrt(), validate_args=False)

    def binary(self, outputs: Tensor) -> dist.TorchDistribution:
        """NormalBernoulli(location, scale)."""
        return NormalBernoulli(*outputs.unbind(-1), validate_args=False)


class StudentTEffect:
    """beta = delta + gamma t, t with `df` degrees of freedom: between the two; continuous responses only.

    Not the published method.
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
        """Not implemented: its probability has no fast formula.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("StudentTEffect: binary responses have the Cauchy and the normal effect only")
