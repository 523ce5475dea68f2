"""Likelihoods of real-valued targets, y [batch, out]."""

import torch
from pyro import distributions as dist
from torch import Tensor
from typing_extensions import override

from bayesnn.likelihoods.expectations import heteroscedastic_expectation, normal_expectation, variances
from bayesnn.likelihoods.scores import IndependentOutputs, student_t_location
from bayesnn.scales import Scale, check, describe, resolve


class Normal(IndependentOutputs):
    """y ~ N(f, scale^2)."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        check("likelihoods.normal", scale=scale)
        self.scale = scale

    @override
    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Normal(outputs, resolve("y_scale", self.scale, outputs, 1)).to_event(1)

    @property
    def noise(self) -> Scale:
        """The scale as it was given: a number, learned or latent."""
        return self.scale

    def noise_scale(self, outputs: Tensor) -> Tensor:
        """The scale's present value, broadcasting to the outputs."""
        if isinstance(self.scale, dist.Distribution):
            raise ValueError(
                "likelihoods.normal: the scale of the noise is latent (site 'y_scale'), so that y is a mixture of "
                "normals; give a number or learned(...), or draw: MeanField, predictive(model, guide, x)"
            )
        return resolve("y_scale", self.scale, outputs, 1)

    def with_noise(self, noise: Scale) -> "Normal":
        """The same likelihood with another scale."""
        return Normal(noise)

    def score_deviation(self, outputs: Tensor) -> Tensor:
        """1 / scale."""
        return 1 / resolve("y_scale", self.scale, outputs, 1).expand_as(outputs)

    def expected_log_prob(self, mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
        """sum_k log N(y_k; mean_k, scale_k^2) - V_kk / (2 scale_k^2): exact."""
        return normal_expectation(mean, variances(mean, variance), y, self.noise_scale(mean))

    def normal_predictive(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """N(mean, V + scale^2): exact."""
        noise = self.noise_scale(mean).square()
        if noise.dim() and noise.shape[-1] not in (1, mean.shape[-1]):
            raise ValueError(
                f"likelihoods.normal: it has {noise.shape[-1]} scales, but the network {mean.shape[-1]} outputs"
            )
        return mean, _added(variance, noise.expand_as(mean))

    @override
    def extra_repr(self) -> str:
        return f"scale={describe(self.scale)}"


class StudentT(IndependentOutputs):
    """y ~ f + scale * t(df)."""

    def __init__(self, df: Scale, scale: Scale) -> None:
        super().__init__()
        check("likelihoods.student_t", df=df, scale=scale)
        self.df, self.scale = df, scale

    @override
    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        df, scale = resolve("y_df", self.df, outputs, 1), resolve("y_scale", self.scale, outputs, 1)
        return dist.StudentT(df, outputs, scale).to_event(1)

    def score_deviation(self, outputs: Tensor) -> Tensor:
        """sqrt((df + 1) / (df + 3)) / scale."""
        df, scale = resolve("y_df", self.df, outputs, 1), resolve("y_scale", self.scale, outputs, 1)
        return student_t_location(df, scale).expand_as(outputs)

    @override
    def extra_repr(self) -> str:
        return f"df={describe(self.df)}, scale={describe(self.scale)}"


class HeteroscedasticNormal(IndependentOutputs):
    """y ~ N(m, exp(s)^2) with outputs (m, s): the first half are means, the
    second log standard deviations.
    """

    @override
    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        mean, log_scale = self._halves(outputs)
        return dist.Normal(mean, log_scale.exp()).to_event(1)

    def score_deviation(self, outputs: Tensor) -> Tensor:
        """exp(-s) for the means, sqrt(2) for the log scales."""
        _, log_scale = self._halves(outputs)
        return torch.cat([(-log_scale).exp(), torch.full_like(log_scale, 2**0.5)], -1)

    def expected_log_prob(self, mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
        """The exact E[log p(y | f)]; it uses the covariances of means and log scales if given."""
        self._halves(mean)
        return heteroscedastic_expectation(mean, variance, y)

    def normal_predictive(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The mean m and covariance V_m + exp(2 s + 2 V_s) of y, both exact.

        The distribution of y itself has longer tails than a normal.
        """
        targets = mean.shape[-1] // 2
        (loc, log_scale), (_, spread) = self._halves(mean), self._halves(variances(mean, variance))
        of_means = variance[..., :targets, :targets] if variance.dim() > mean.dim() else variance[..., :targets]
        return loc, _added(of_means, (2 * log_scale + 2 * spread).exp())

    def _halves(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        if outputs.shape[-1] % 2:
            raise ValueError(
                f"likelihoods.heteroscedastic: the network needs two outputs for each target (mean, log scale), but it "
                f"has {outputs.shape[-1]}"
            )
        mean, log_scale = outputs.chunk(2, -1)
        return mean, log_scale


heteroscedastic = HeteroscedasticNormal()


def normal(scale: Scale = 1.0) -> Normal:
    """y ~ N(f, scale^2), independently for every output.

    Args:
        scale: the standard deviation, in units of y: a number or one for each output;
            `learned(0.1)`, a parameter that trains with the guide; or a distribution such as
            `HalfCauchy(1.0)`, which makes a latent site "y_scale".

    Raises:
        ValueError: a scale that is not positive and finite.

    >>> normal(0.5)(torch.zeros(8, 1)).log_prob(torch.zeros(8, 1)).shape
    torch.Size([8])
    """
    return Normal(scale)


def student_t(df: Scale = 4.0, scale: Scale = 1.0) -> StudentT:
    """y ~ f + scale * t(df), which allows for outliers in y.

    Both arguments may be fixed, learned or latent, as in `normal`.
    """
    return StudentT(df, scale)


def _added(variance: Tensor, noise: Tensor) -> Tensor:
    """Variances or covariances plus the variances [batch, out] of independent noise."""
    return variance + (torch.diag_embed(noise) if variance.dim() > noise.dim() else noise)
