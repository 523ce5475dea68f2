"""Likelihoods of real-valued targets, y [batch, out]."""

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.scales import Scale, check, describe, resolve


class Normal(nn.Module):
    """y ~ N(f, scale^2)."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        check("likelihoods.normal", scale=scale)
        self.scale = scale

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """p(y | outputs)."""
        return dist.Normal(outputs, resolve("y_scale", self.scale, outputs, 1)).to_event(1)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(1 / scale^2)."""
        scale = resolve("y_scale", self.scale, outputs, 1).expand_as(outputs)
        return torch.diag_embed(scale**-2)

    def extra_repr(self) -> str:
        """The scale."""
        return f"scale={describe(self.scale)}"


class StudentT(nn.Module):
    """y ~ f + scale * t(df)."""

    def __init__(self, df: Scale, scale: Scale) -> None:
        super().__init__()
        check("likelihoods.student_t", df=df, scale=scale)
        self.df, self.scale = df, scale

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """p(y | outputs)."""
        df, scale = resolve("y_df", self.df, outputs, 1), resolve("y_scale", self.scale, outputs, 1)
        return dist.StudentT(df, outputs, scale).to_event(1)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag((df + 1) / ((df + 3) scale^2))."""
        df, scale = resolve("y_df", self.df, outputs, 1), resolve("y_scale", self.scale, outputs, 1)
        return torch.diag_embed(((df + 1) / ((df + 3) * scale**2)).expand_as(outputs))

    def extra_repr(self) -> str:
        """The degrees of freedom and the scale."""
        return f"df={describe(self.df)}, scale={describe(self.scale)}"


class HeteroscedasticNormal(nn.Module):
    """y ~ N(m, exp(s)^2) with outputs (m, s): the first half are means, the second log standard deviations."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """p(y | outputs)."""
        if outputs.shape[-1] % 2:
            raise ValueError(
                f"likelihoods.heteroscedastic: the network needs two outputs for each target (mean, log scale), but it "
                f"has {outputs.shape[-1]}"
            )
        mean, log_scale = outputs.chunk(2, -1)
        return dist.Normal(mean, log_scale.exp()).to_event(1)

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(exp(-2 s)) for the means, diag(2) for the log scales."""
        _, log_scale = outputs.chunk(2, -1)
        return torch.diag_embed(torch.cat([(-2 * log_scale).exp(), torch.full_like(log_scale, 2.0)], -1))


heteroscedastic = HeteroscedasticNormal()


def normal(scale: Scale = 1.0) -> Normal:
    """y ~ N(f, scale^2), independently for every output.

    Args:
        scale: the standard deviation, in units of y: a number or one for each output; `learned(0.1)`, a parameter that
            trains with the guide; or a distribution such as `HalfCauchy(1.0)`, which makes a latent site "y_scale".

    Raises:
        ValueError: a scale that is not positive and finite.

    >>> normal(0.5)(torch.zeros(8, 1)).log_prob(torch.zeros(8, 1)).shape
    torch.Size([8])
    """
    return Normal(scale)


def student_t(df: Scale = 4.0, scale: Scale = 1.0) -> StudentT:
    """y ~ f + scale * t(df): outliers in y. Both arguments fixed, learned or latent, as in `normal`."""
    return StudentT(df, scale)
