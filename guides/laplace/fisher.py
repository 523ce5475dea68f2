"""Roots of the Fisher information of y in a network's outputs: what a Gauss-Newton matrix weighs its Jacobians with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from bayesnn.functional import alone, memory
from bayesnn.functional.roots import semidefinite_root

Fisher = Callable[[Any, Tensor, Tensor], Tensor]
"""(likelihood, outputs [batch, ...], y) -> R [batch, out, column], with L_i ~ R_i R_i^T for each example."""


def exact(likelihood: Any, outputs: Tensor, y: Tensor) -> Tensor:
    """R R^T = L(f), the likelihood's `fisher(outputs)`: as many columns as its rank, 9 for ten classes.

    Raises:
        ValueError: the likelihood has no `fisher`.
    """
    fisher = exact_fisher(likelihood, outputs)
    root = semidefinite_root(fisher)
    if not bool((fisher - root @ root.mT).abs().amax() <= 1e-3 * fisher.abs().amax()):
        _explain(fisher)
    return root


def exact_fisher(likelihood: Any, outputs: Tensor) -> Tensor:
    """L(f), [batch, out, out], the outputs flattened; `exact` is its root."""
    check_fisher(likelihood)
    count = outputs[0].numel()
    memory.require(
        3 * outputs.element_size() * len(outputs) * count**2,
        outputs.device,
        f"Laplace: the Fisher information of {len(outputs)} examples in {count:,} outputs",
        "use fisher=MonteCarlo(), whose size is that of the outputs, or smaller batches",
    )
    fisher: Tensor = likelihood.fisher(outputs)
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


def check_fisher(likelihood: object) -> None:
    """Refuse a likelihood without a `fisher`."""
    if getattr(likelihood, "fisher", None) is None:
        raise ValueError(
            "Laplace: the likelihood has no Fisher information of its outputs; give it a method "
            "fisher(outputs) -> [batch, class, class], or use fisher=MonteCarlo() or fisher=empirical, which need none"
        )


@dataclass(frozen=True)
class MonteCarlo:
    """R = score(y_s) / sqrt(S) for S targets drawn from the model: unbiased for L, S columns whatever the classes.

    Reference: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored approximate curvature.
    """

    draws: int = 1

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"MonteCarlo: at least one draw is needed, not {self.draws}")

    def __call__(self, likelihood: Any, outputs: Tensor, y: Tensor) -> Tensor:
        """Roots [batch, out, draw]."""
        with alone(), poutine.block():
            drawn = likelihood(outputs).sample((self.draws,))
        return torch.stack([score(likelihood, outputs, one) for one in drawn], -1) / self.draws**0.5


def empirical(likelihood: Any, outputs: Tensor, y: Tensor) -> Tensor:
    """R = score(y) at the labels themselves, one column.

    Not an estimate of L: where the network fits its data the scores vanish and the posterior stays at the prior.
    Reference: Kunstner, Balles, Hennig (2019), Limitations of the empirical Fisher approximation.
    """
    return score(likelihood, outputs, y).unsqueeze(-1)


def score(likelihood: Any, outputs: Tensor, y: Tensor) -> Tensor:
    """d log p(y | f) / df, [batch, out]."""
    with alone(), torch.enable_grad(), poutine.block():
        at = outputs.detach().requires_grad_()
        (found,) = torch.autograd.grad(likelihood(at).log_prob(y).sum(), at)
    return found.flatten(1)
