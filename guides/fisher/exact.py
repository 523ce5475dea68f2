"""The Fisher information itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesnn.functional import memory, semidefinite_root
from bayesnn.guides.fisher.protocol import BackwardPass
from bayesnn.guides.fisher.rules import RULES, Rule
from bayesnn.guides.fisher.scores import unit_rows
from bayesnn.likelihoods import HasFisher, HasFisherRoot, Likelihood

if TYPE_CHECKING:
    from bayesnn.guides.variational_laplace.conditional import ConditionalSite


@dataclass(frozen=True)
class ExactFisher:
    """L = E[d log p/df d log p/df^T] itself, without noise.

    For a Laplace approximation R R^T = L by the likelihood's `fisher_root`, as many columns as the
    rank of L has, 9 for ten classes; for a likelihood with `fisher` alone, by a Cholesky
    factorisation with pivoting. For an ELBO one row of a batched backward pass for each example
    and class: its memory is batch x class x weights, for small batches and networks.

    Args:
        rules: for ELBOs, the Fisher information of further distributions, {class: rule}; see
            `guides/fisher/rules.py`.

    Raises:
        ValueError: the likelihood has no `fisher`, or one that is not finite or not positive
            semi-definite.
        MemoryError: the matrices do not fit, with their size.

    >>> from bayesnn import likelihoods
    >>> R = ExactFisher().roots(likelihoods.categorical, torch.zeros(1, 2), torch.tensor([0]))
    >>> R @ R.mT
    tensor([[[ 0.2500, -0.2500],
             [-0.2500,  0.2500]]])
    """

    rules: Mapping[type, Rule] = field(default_factory=dict)

    def roots(self, likelihood: Likelihood, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        """R with R R^T = L(f), [batch, out, column]; y is not used."""
        check_fisher(likelihood)
        _check_memory(outputs)
        return fisher_root(likelihood, outputs)

    def information(self, likelihood: Likelihood, outputs: Tensor) -> Tensor:
        """L(f), [batch, out, out], without a root of it."""
        _check_memory(outputs)
        return _checked(check_fisher(likelihood).fisher(outputs))

    def passes(self, sites: Sequence["ConditionalSite"]) -> Iterator[BackwardPass]:
        """The backward passes: one batched pass for each parameter of each site."""
        for site in sites:
            weights = sum(block.mean.numel() for block in site.blocks)
            for parameter, root in site.roots({**RULES, **self.rules}):
                yield BackwardPass([parameter], [root(unit_rows(parameter, weights, site.name))], batched=True)


EXACT = ExactFisher()


def fisher_root(likelihood: Likelihood, outputs: Tensor) -> Tensor:
    """R with R R^T = fisher(outputs), [batch, out, column]: the likelihood's
    own root, or a pivoted one.
    """
    if isinstance(likelihood, HasFisherRoot) and not _overridden(likelihood):
        root = likelihood.fisher_root(outputs)
        if not bool(torch.isfinite(root).all()):
            raise ValueError("Laplace: the curvature is not finite; is the likelihood's fisher_root?")
        return root
    fisher = _checked(check_fisher(likelihood).fisher(outputs))
    root = semidefinite_root(fisher)
    if not bool((fisher - root @ root.mT).abs().amax() <= 1e-3 * fisher.abs().amax()):
        _explain(fisher)
    return root


def check_fisher(likelihood: object) -> HasFisher:
    """The likelihood itself; one that has no `fisher` is refused."""
    if not isinstance(likelihood, HasFisher):
        raise ValueError(
            "Laplace: the likelihood has no Fisher information of its outputs; give it a method "
            "fisher(outputs) -> [batch, class, class], or use fisher=MonteCarloFisher() or fisher=EmpiricalFisher(), "
            "which need none"
        )
    return likelihood


def _overridden(likelihood: object) -> bool:
    """Whether a sub-class has another `fisher` but the root of the class above: it would be the
    root of another one.
    """
    for kind in type(likelihood).__mro__:
        if "fisher" in vars(kind) or "fisher_root" in vars(kind):
            return "fisher_root" not in vars(kind)
    return False


def _check_memory(outputs: Tensor) -> None:
    count = outputs[0].numel()
    memory.require(
        3 * outputs.element_size() * len(outputs) * count**2,
        outputs.device,
        f"Laplace: the Fisher information of {len(outputs)} examples in {count:,} outputs",
        "use fisher=MonteCarloFisher(), whose size is that of the outputs, or smaller batches",
    )


def _checked(fisher: Tensor) -> Tensor:
    if not bool((fisher.diagonal(dim1=-2, dim2=-1) >= 0).all()):
        _explain(fisher)
    return fisher


def _explain(fisher: Tensor) -> None:
    """Say why a matrix has no root."""
    if not bool(torch.isfinite(fisher).all()):
        raise ValueError("Laplace: the curvature is not finite; is the likelihood's fisher?")
    raise ValueError(
        "Laplace: the precision is not positive definite: the curvature has the eigenvalue "
        f"{torch.linalg.eigvalsh(fisher).min().item():.3g}; is the likelihood's fisher positive semi-definite?"
    )
