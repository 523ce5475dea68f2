"""Ways to the Fisher information in the weights: derivatives whose squares have it as their mean."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bayesnn.functional import memory
from bayesnn.guides.variational_laplace_means import Block, depends_on, unwrapped
from bayesnn.guides.variational_laplace_roots import RULES, Root, Rule


@dataclass(frozen=True, eq=False)
class Conditional:
    """One p(value | parents) of the model, an observed site or a prior, whose parameters depend on the guide's means.

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
        """(parameter, root) of the parameters that depend on the means; the roots have the weight."""
        fn = unwrapped(self.fn)
        rule = next((rules[kind] for kind in type(fn).__mro__ if kind in rules), None)
        for parameter, root in [] if rule is None else rule(fn):
            if not depends_on([parameter], self.blocks):
                continue
            if root is None:
                rule = None
                break
            weight = self.weight.reshape(self.weight.shape + (1,) * (parameter.dim() - self.weight.dim()))
            yield parameter, lambda xi, root=root, weight=weight: root(xi) * weight
        if rule is None:
            raise ValueError(
                f"VariationalLaplaceELBO: the Fisher information of {type(fn).__name__} (site {self.name!r}) in all "
                "parameters that depend on the weights is not known; use curvature=SampledLabels(), or "
                "FisherProbes(rules={" + type(fn).__name__ + ": ...})"
            )


@dataclass(frozen=True, eq=False)
class Pass:
    """One backward pass: g = sum over outputs of J^T cotangent; if `batched`, one g for each row of the cotangents."""

    outputs: list[Tensor]
    cotangents: list[Tensor]
    batched: bool = False


Curvature = Callable[[Sequence[Conditional]], Iterator[Pass]]
"""Conditionals -> backward passes with E[sum over passes of g g^T] = F, the Fisher information of all of them."""


@dataclass(frozen=True)
class FisherProbes:
    """g = sum_i J_i^T A_i xi_i with A_i A_i^T = L_i and random signs xi: E[g g^T] = sum_i J_i^T L_i J_i = F.

    One backward pass for all examples and classes. Unbiased for F *and*, since A_i keeps its graph, for dF/dw.

    Args:
        draws: probes to average over, one backward pass each.
        rules: Fisher information of further distributions, {class: rule}; see `guides/variational_laplace_roots.py`.
    """

    draws: int = 1
    rules: Mapping[type, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_draws(self)

    def __call__(self, sites: Sequence[Conditional]) -> Iterator[Pass]:
        """One pass a draw."""
        roots = [found for site in sites for found in site.roots({**RULES, **self.rules})]
        for _ in range(self.draws):
            probes = [root(signs(parameter)) * self.draws**-0.5 for parameter, root in roots]
            yield Pass([parameter for parameter, _ in roots], probes)


@dataclass(frozen=True)
class SampledLabels:
    """g = d/dw sum_i log p(y~_i | w) with labels y~ drawn from the model: E[g g^T] = F, for every distribution.

    The gradient of g^2 is biased: labels are drawn anew, but held when it is differentiated. For a model that is linear
    in its weights with a softmax it is zero in the mean, where dF/dw is not. Use it where no Fisher information is
    known, or with `curvature_grad=False`.
    """

    draws: int = 1

    def __post_init__(self) -> None:
        _check_draws(self)

    def __call__(self, sites: Sequence[Conditional]) -> Iterator[Pass]:
        """One pass a draw."""
        for _ in range(self.draws):
            with torch.no_grad():
                labels = [site.fn.sample() for site in sites]
            scores = [site.log_prob(label) for site, label in zip(sites, labels, strict=True)]
            yield Pass(scores, [torch.full_like(score, self.draws**-0.5) for score in scores])


@dataclass(frozen=True)
class EmpiricalFisher:
    """g = d/dw sum_i xi_i log p(y_i | w) with random signs xi: E[g g^T] = sum_i g_i g_i^T, of the labels themselves.

    The signs take the products g_i g_j of different examples out, which would make it depend on the batch size. It is
    not the Fisher information: where the network fits its data it vanishes and the posterior stays at the prior.

    Args:
        draws: sets of signs to average over.
        each: one backward pass for each example in the place of signs: no noise, for small batches.

    Reference: Kunstner, Balles, Hennig (2019), Limitations of the empirical Fisher approximation.
    """

    draws: int = 1
    each: bool = False

    def __post_init__(self) -> None:
        _check_draws(self)

    def __call__(self, sites: Sequence[Conditional]) -> Iterator[Pass]:
        """One pass a draw, or one batched pass a site."""
        scores = [site.log_prob(site.value.detach()) for site in sites]
        if self.each:
            yield from (Pass([score], [_rows(score, site)], batched=True) for score, site in zip(scores, sites, strict=True))
            return
        for _ in range(self.draws):
            yield Pass(scores, [signs(score) * self.draws**-0.5 for score in scores])


@dataclass(frozen=True)
class ExactFisher:
    """F itself: one row of a batched backward pass for each example and class, in the place of random signs.

    For small batches and networks: its memory is batch x class x weights.
    """

    rules: Mapping[type, Rule] = field(default_factory=dict)

    def __call__(self, sites: Sequence[Conditional]) -> Iterator[Pass]:
        """One batched pass for each parameter of each site."""
        for site in sites:
            for parameter, root in site.roots({**RULES, **self.rules}):
                yield Pass([parameter], [root(_rows(parameter, site))], batched=True)


def signs(like: Tensor) -> Tensor:
    """Random signs, +1 or -1."""
    return torch.empty_like(like, requires_grad=False).bernoulli_(0.5).mul_(2).sub_(1)


def _rows(like: Tensor, site: Conditional) -> Tensor:
    """Unit vectors, [number, *like]."""
    count, weights = like.numel(), sum(block.mean.numel() for block in site.blocks)
    memory.require(
        4 * like.element_size() * count * (weights + count),
        like.device,
        f"VariationalLaplaceELBO: {count:,} exact derivatives of site {site.name!r} in {weights:,} weights",
        "use FisherProbes(), or smaller batches",
    )
    return torch.eye(count, dtype=like.dtype, device=like.device).reshape(count, *like.shape)


def _check_draws(curvature: FisherProbes | SampledLabels | EmpiricalFisher) -> None:
    if curvature.draws < 1:
        raise ValueError(f"{type(curvature).__name__}: at least one draw is needed, not {curvature.draws}")
