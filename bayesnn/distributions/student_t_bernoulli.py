"""`StudentTBernoulli`: a binary variable whose logit has a Student-t distribution."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pyro import distributions as dist
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from typing_extensions import override

from bayesnn.distributions.logistic.softmax import log_mean_softmax


class StudentTBernoulli(dist.Bernoulli):
    """y ~ Bernoulli(sigmoid(t)) with t = loc + scale T, T ~ Student-t(df), integrated out.

        P(y = 1) = E sigmoid(loc + scale T)

    by the nodes of `StudentTCategorical`: absolute accuracy 2e-10. For df = 1 it is
    `CauchyBernoulli`, for df = infinity `NormalBernoulli`, which are faster and more accurate.

    Args:
        df: degrees of freedom, positive, one number for all.
        loc: centre of the logit.
        scale: scale of the logit, at least 0.

    Shapes: loc and scale broadcast to the batch shape; y is 0.0 or 1.0. Units: log probabilities
    in nats.

    Raises:
        ValueError: parameters out of their range, NaN, or a y other than 0 and 1.

    >>> import torch
    >>> StudentTBernoulli(4.0, torch.tensor([0.7, 3.0]), torch.tensor([0.35, 2.0])).probs
    tensor([0.6608, 0.8438])
    """

    arg_constraints: ClassVar[dict] = {"loc": constraints.real, "scale": constraints.nonnegative}

    def __init__(
        self, df: float, loc: Tensor | float, scale: Tensor | float, *, validate_args: bool | None = None
    ) -> None:
        if not df > 0:
            raise ValueError(f"StudentTBernoulli: degrees of freedom are positive, not {df}")
        self.df = float(df)
        self.loc, self.scale = broadcast_all(loc, scale)
        loc, scale = self.loc.double(), self.scale.double()
        both = log_mean_softmax(self.df, loc.new_tensor([0.0, 1.0]).expand(*loc.shape, 2), loc, scale)
        super().__init__(logits=(both[..., 1] - both[..., 0]).to(self.loc.dtype), validate_args=validate_args)

    @override
    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "StudentTBernoulli":
        new = self._get_checked_instance(StudentTBernoulli, _instance)
        batch = Size(batch_shape)
        new.df, new.loc, new.scale = self.df, self.loc.expand(batch), self.scale.expand(batch)
        return super().expand(batch, new)
