"""Priors that are one family with one scale for all weights."""

from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.scales import Scale, check, describe, resolve


class Normal(nn.Module):
    """w ~ N(0, scale^2), independently."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        check("priors.normal", scale=scale)
        self.scale = scale

    def forward(self, name: str, value: Tensor) -> dist.TorchDistribution:
        """p(block)."""
        return dist.Normal(
            value.new_zeros(()), resolve(f"{name}_scale", self.scale, value, value.dim()), validate_args=False
        )

    def extra_repr(self) -> str:
        """Normal(0, scale)."""
        return f"loc=0, scale={describe(self.scale)}"


class Laplace(nn.Module):
    """p(w) = exp(-|w| / scale) / (2 scale), independently."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        check("priors.laplace", scale=scale)
        self.scale = scale

    def forward(self, name: str, value: Tensor) -> dist.TorchDistribution:
        """p(block)."""
        return dist.Laplace(
            value.new_zeros(()), resolve(f"{name}_scale", self.scale, value, value.dim()), validate_args=False
        )

    def extra_repr(self) -> str:
        """Laplace(0, scale)."""
        return f"loc=0, scale={describe(self.scale)}"


class StudentT(nn.Module):
    """w ~ scale * t(df), independently."""

    def __init__(self, df: float, scale: Scale) -> None:
        super().__init__()
        check("priors.student_t", df=df, scale=scale)
        self.df = float(df)
        self.scale = scale

    def forward(self, name: str, value: Tensor) -> dist.TorchDistribution:
        """p(block)."""
        scale = resolve(f"{name}_scale", self.scale, value, value.dim())
        return dist.StudentT(value.new_tensor(self.df), value.new_zeros(()), scale, validate_args=False)

    def extra_repr(self) -> str:
        """StudentT(df, 0, scale)."""
        return f"df={self.df:g}, loc=0, scale={describe(self.scale)}"


def normal(scale: Scale = 1.0) -> Normal:
    """w ~ N(0, scale^2), independently for every weight.

    Args:
        scale: in units of the weights: a number; `learned(1.0)`, one parameter shared by all
            blocks (empirical Bayes); or a distribution, which makes a latent scale for every block
            (see `hierarchical`).

    Raises:
        ValueError: a scale that is not positive and finite.

    >>> import torch
    >>> normal(2.0)("weight", torch.zeros(3)).scale
    tensor(2.)
    """
    return Normal(scale)


def laplace(scale: Scale = 1.0) -> Laplace:
    """p(w) = exp(-|w| / scale) / (2 scale), independently: the sparse prior of
    the lasso. `scale` as in `normal`.
    """
    return Laplace(scale)


def student_t(df: float = 3.0, scale: Scale = 1.0) -> StudentT:
    """w ~ scale * t(df), independently: heavy tails, found in the weights of trained networks.

    Reference: Fortuin, Garriga-Alonso, Ober, Wenzel, Rätsch, Turner, van der Wilk, Aitchison
    (2022), Bayesian neural network priors revisited.
    """
    return StudentT(df, scale)
