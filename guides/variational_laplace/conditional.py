"""The parts of a model that depend on the weights: conditional distributions and derivatives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bayesnn.guides.fisher.rules import Root, Rule, rule_of
from bayesnn.guides.variational_laplace.means import Block, depends_on
from bayesnn.sites import base_of


@dataclass(frozen=True, eq=False)
class ConditionalSite:
    """One p(value | parents) of the model, an observed site or a prior, whose parameters depend on
    the guide's means.

    Attributes:
        name: the site.
        fn: its distribution.
        value: what was observed, or the mean.
        weight: square root of scale and mask, over the distribution's batch shape.
        blocks: the guide's normal sites.
    """

    name: str
    fn: Any
    value: Tensor
    weight: Tensor
    blocks: Sequence[Block]

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), [*batch], times the weight."""
        return self.fn.log_prob(value) * self.weight

    def roots(self, rules: Mapping[type, Rule]) -> Iterator[tuple[Tensor, Root]]:
        """(parameter, root) of the parameters that depend on the means; the
        roots have the weight.
        """
        fn = base_of(self.fn)
        rule = rule_of(fn, rules)
        for parameter, root in [] if rule is None else rule(fn):
            if not depends_on([parameter], self.blocks):
                continue
            if root is None:
                rule = None
                break
            weight = self.weight.reshape(self.weight.shape + (1,) * (parameter.dim() - self.weight.dim()))
            yield parameter, _weighted(root, weight)
        if rule is None:
            raise ValueError(
                f"VariationalLaplaceELBO: the Fisher information of {type(fn).__name__} (site {self.name!r}) in all "
                "parameters that depend on the weights is not known; use curvature=MonteCarloFisher(), or "
                "FisherProbes(rules={" + type(fn).__name__ + ": ...})"
            )


def _weighted(root: Root, weight: Tensor) -> Root:
    return lambda xi: root(xi) * weight
