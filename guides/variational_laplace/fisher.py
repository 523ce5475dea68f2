"""Ways to the Fisher information in the weights: derivatives whose squares have it as their mean."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesnn.functional import memory
from bayesnn.guides.variational_laplace.conditional import ConditionalSite, Pass
from bayesnn.guides.variational_laplace.roots import RULES, Rule


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

    def __call__(self, sites: Sequence[ConditionalSite]) -> Iterator[Pass]:
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

    def __call__(self, sites: Sequence[ConditionalSite]) -> Iterator[Pass]:
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

    def __call__(self, sites: Sequence[ConditionalSite]) -> Iterator[Pass]:
        """One pass a draw, or one batched pass a site."""
        scores = [site.log_prob(site.value.detach()) for site in sites]
        if self.each:
            yield from (
                Pass([score], [_rows(score, site)], batched=True) for score, site in zip(scores, sites, strict=True)
            )
            return
        for _ in range(self.draws):
            yield Pass(scores, [signs(score) * self.draws**-0.5 for score in scores])


@dataclass(frozen=True)
class ExactFisher:
    """F itself: one row of a batched backward pass for each example and class, in the place of random signs.

    For small batches and networks: its memory is batch x class x weights.
    """

    rules: Mapping[type, Rule] = field(default_factory=dict)

    def __call__(self, sites: Sequence[ConditionalSite]) -> Iterator[Pass]:
        """One batched pass for each parameter of each site."""
        for site in sites:
            for parameter, root in site.roots({**RULES, **self.rules}):
                yield Pass([parameter], [root(_rows(parameter, site))], batched=True)


def signs(like: Tensor) -> Tensor:
    """Random signs, +1 or -1."""
    return torch.empty_like(like, requires_grad=False).bernoulli_(0.5).mul_(2).sub_(1)


def _rows(like: Tensor, site: ConditionalSite) -> Tensor:
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
