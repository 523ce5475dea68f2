"""A tensor whose last axis is jointly random: means and covariances, and the
open table of its rules.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from bayesnn.moments.place import place
from bayesnn.moments.table import Rule, dispatch, rule_of
from bayesnn.moments.value import Moments

_R = TypeVar("_R", bound=Rule)

COVARIANCE_RULES: dict[Any, Rule] = {}
"""{torch function: its rule}. A rule takes the function's own arguments, `JointMoments` among
them, and returns one.
"""


class JointMoments(Moments):
    """A random tensor [..., n] whose n entries, the units of one example, are known by means and
    covariances.

    Entries of different examples are independent. Every torch function that meets one looks up its
    rule in `COVARIANCE_RULES`; an activation that is in `MOMENT_RULES` by `elementwise_moments`
    needs none. What has no rule is refused.

    Args:
        loc: means, [..., n].
        covariance: [..., n, n], symmetric.
        variance: its diagonal, [..., n], where that is known by itself.

    >>> import torch
    >>> x = JointMoments(torch.zeros(1, 2), torch.tensor([[[1.0, 0.5], [0.5, 1.0]]]))
    >>> torch.nn.functional.linear(x, torch.tensor([[1.0, -1.0]])).variance
    tensor([[1.]])
    """

    joint = True
    covariance: Tensor

    @staticmethod
    def __new__(cls, loc: Tensor, covariance: Tensor, variance: Tensor | None = None) -> "JointMoments":
        """Nothing is copied."""
        new: JointMoments = Tensor._make_subclass(cls, loc.detach())
        new.loc, new.covariance, new._writes, new._seen = loc, covariance, [0], 0
        new._variance = covariance.diagonal(dim1=-2, dim2=-1) if variance is None else variance
        return new

    def write(self, other: Moments) -> Moments:
        """As of `Moments`."""
        if isinstance(other, JointMoments):
            self.covariance = other.covariance
        return super().write(other)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"JointMoments(loc={self.loc}, covariance={self.covariance})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {}, find=_rule_of)


def covariance_rule(*functions: Any) -> Callable[[_R], _R]:
    """Decorator: what is written below it is the rule of these torch functions for `JointMoments`.

    >>> import torch
    >>> @covariance_rule(torch.cumsum)
    ... def cumulative_sum(x, dim):                      # linear in x: x @ ones
    ...     ones = torch.ones(x.shape[-1], x.shape[-1]).triu()
    ...     return x @ ones
    >>> x = JointMoments(torch.zeros(2), torch.eye(2))
    >>> torch.cumsum(x, -1).covariance
    tensor([[1., 1.],
            [1., 2.]])
    """

    def register(rule: _R) -> _R:
        COVARIANCE_RULES.update((function, rule) for function in functions)
        return rule

    return register


def no_covariances(what: str, why: str = "") -> NotImplementedError:
    """The error of an operation that cannot keep covariances."""
    reason = f": {why}" if why else ""
    return NotImplementedError(
        f"moments: {what} at {place()} has no rule for covariances between units{reason}; add one to COVARIANCE_RULES, "
        "or leave them out, covariance=False"
    )


def _rule_of(func: Any) -> Rule | None:
    """The rule for covariances; of a function that only has one for variances,
    that which refuses it.
    """
    rule = COVARIANCE_RULES.get(func)
    if rule is not None:
        return rule
    diagonal = rule_of(func)
    if diagonal is None or getattr(diagonal, "elementwise", False):
        return diagonal  # smooth activations know what to do
    return lambda *_, **__: _refuse(func)


def _refuse(func: Any) -> None:
    raise no_covariances(func if isinstance(func, str) else func.__name__)
