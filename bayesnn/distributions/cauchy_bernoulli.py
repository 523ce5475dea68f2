"""`CauchyBernoulli`: a binary variable whose logit is Cauchy distributed."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pyro import distributions as dist
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid
from typing_extensions import override

from bayesnn.distributions.logistic.cauchy_logit import logit_of_mean


class CauchyBernoulli(dist.Bernoulli):
    """y ~ Bernoulli(sigmoid(t)) with t ~ Cauchy(loc, scale), t integrated out: the integrated
    logistic.

        P(y = 1) = 1/2 + Im psi(1/2 + (scale + i loc) / (2 pi)) / pi

    with the digamma function psi. It is Bernoulli(sigmoid(loc)) for scale = 0, which is allowed,
    and tends to 1/2 + atan(loc / scale) / pi as both grow. The probability of either outcome and
    the gradient are computed in double precision whatever the dtype of the arguments, to a
    relative accuracy of 1e-13, so that no clamping is needed; second derivatives exist too. It is
    a Pyro Bernoulli with these `logits`, so `probs`, `entropy`, `enumerate_support` and what else
    that has work.

    Args:
        loc: centre of the logit.
        scale: half width at half maximum of the logit, at least 0.

    Shapes: the arguments broadcast to the batch shape; y is 0.0 or 1.0. Units: log probabilities
    in nats.

    Raises:
        ValueError: a scale out of its range, NaN, or a y other than 0 and 1.

    Reference: the binary likelihood of Hickey, Williams and Hector, "Transfer learning with
    uncertainty quantification: random effect calibration of source to target (RECaST)", arXiv
    2211.16557, who evaluate it by quadrature.

    >>> import torch
    >>> CauchyBernoulli(torch.tensor([0.7, 100.0]), torch.tensor([0.35, 100.0])).probs
    tensor([0.6419, 0.7500])
    """

    arg_constraints: ClassVar[dict] = {"loc": constraints.real, "scale": constraints.nonnegative}

    def __init__(self, loc: Tensor | float, scale: Tensor | float, *, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        logits = logit_of_mean(self.loc.double(), self.scale.double()).to(self.loc.dtype)
        super().__init__(logits=logits, validate_args=validate_args)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # Bernoulli's has slopes with the digits of 1 - p
        return logsigmoid((2 * value - 1) * self.logits)

    @override
    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "CauchyBernoulli":
        new = self._get_checked_instance(CauchyBernoulli, _instance)
        new.loc, new.scale = self.loc.expand(Size(batch_shape)), self.scale.expand(Size(batch_shape))
        return super().expand(batch_shape, new)
