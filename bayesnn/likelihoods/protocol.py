"""The protocol of a likelihood, and of the optional methods that it may have."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from pyro.distributions import TorchDistribution
from torch import Tensor

from bayesnn.scales import Scale


class Likelihood(Protocol):
    """The distribution of y given a network's outputs: any function of this signature, a user's
    own too.

    Outputs [*draw, batch, out] become a distribution of batch shape [*draw, batch]; what is left
    (several outputs, a map of pixels) is its event. So y has shape [batch] for `categorical` and
    [batch, out] for the others, `out` = 1 included.

    A likelihood may be an `nn.Module` with learned parameters and may sample Pyro sites of its own
    (a latent noise scale). It must pickle: a function at module level or a class, no lambda.

    A class may say more by methods, and what asks for one names it where it is missing: `fisher`
    (`HasFisher`) for curvature, `expected_log_prob` (`HasExpectation`) for ELBOs without draws,
    `probit_predictive`, `bridge_predictive` and `normal_predictive` for predictions without draws.
    For Laplace approximations `fisher` alone is enough.

    >>> from pyro import distributions as dist
    >>> def exponential(outputs: Tensor) -> TorchDistribution:
    ...     return dist.Exponential(outputs.exp()).to_event(1)
    """

    def __call__(self, outputs: Tensor) -> TorchDistribution:
        """p(y | outputs)."""
        ...


@runtime_checkable
class HasFisher(Protocol):
    """The Fisher information of y in the outputs: Laplace and `largest_variance` work with it."""

    def fisher(self, outputs: Tensor) -> Tensor:
        """E[d log p/df d log p/df^T], [batch, out, out] of the flattened outputs, in nats."""
        ...


@runtime_checkable
class HasFisherRoot(Protocol):
    """A root of the Fisher information in closed form.

    For a likelihood without it, a pivoted factorisation finds one.
    """

    def fisher_root(self, outputs: Tensor) -> Tensor:
        """R with R R^T = fisher(outputs), [batch, out, column]; it has full column rank."""
        ...


@runtime_checkable
class HasExpectation(Protocol):
    """The expected log likelihood of normal outputs without draws."""

    def expected_log_prob(self, mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
        """E[log p(y | f)], f ~ N(mean, V), [batch], in nats.

        Args: mean [batch, out]; variance, V, [batch, out] of independent outputs or
        [batch, out, out]; y.
        """
        ...


@runtime_checkable
class HasLabelExpectation(Protocol):
    """The expected log likelihood of labels, for which there are several rules
    and no closed form.
    """

    def expected_log_prob_by(
        self, rule: Callable[[Tensor, Tensor, Tensor], Tensor], mean: Tensor, variance: Tensor, y: Tensor
    ) -> Tensor:
        """E[log p(y | f)], [batch], by a rule (mean, variance, labels) -> E[log
        softmax(z)_y], z ~ N(mean, V).
        """
        ...


@runtime_checkable
class HasProbitPredictive(Protocol):
    """The predictive by the probit approximation, which `predict.probit` calls."""

    def probit_predictive(self, mean: Tensor, variance: Tensor) -> TorchDistribution:
        """p(y), [batch], for outputs N(mean, diag V), both [batch, out]: outputs over
        sqrt(1 + pi/8 V).
        """
        ...


@runtime_checkable
class HasBridgePredictive(Protocol):
    """The predictive by the Laplace bridge, which `predict.bridge` calls."""

    def bridge_predictive(self, mean: Tensor, covariance: Tensor, *, normalised: bool) -> TorchDistribution:
        """p(y), [batch], for outputs N(mean [batch, class], covariance
        [batch, class, class]): the Laplace bridge.
        """
        ...


@runtime_checkable
class HasNormalPredictive(Protocol):
    """The mean and variance of y given normal outputs, which `predict.gaussian` calls."""

    def normal_predictive(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The mean [batch, target] and the variance of y for outputs N(mean, V).

        V has shape [batch, out] or [batch, out, out].

        The variance is [batch, target], or a covariance where V is one.
        """
        ...


@runtime_checkable
class HasNormalNoise(Protocol):
    """y ~ N(f, scale^2), the likelihood under which a last layer has an exact posterior."""

    @property
    def noise(self) -> Scale:
        """The scale as it was given: a number, learned or latent."""
        ...

    def noise_scale(self, outputs: Tensor) -> Tensor:
        """The scale's present value, in units of y; it broadcasts to outputs [*draw, batch, out].

        Raises ValueError where it is latent.
        """
        ...

    def with_noise(self, noise: Scale) -> Likelihood:
        """The same likelihood with another scale."""
        ...
