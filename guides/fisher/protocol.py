"""The protocols of the Fisher information: roots in the outputs, passes for an ELBO."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from bayesnn.likelihoods import Likelihood

if TYPE_CHECKING:
    from bayesnn.guides.variational_laplace.conditional import ConditionalSite


@runtime_checkable
class OutputFisher(Protocol):
    """The Fisher information L_i of y_i in the outputs of each example: what
    `Laplace(fisher=...)` takes.
    """

    def roots(self, likelihood: Likelihood, outputs: Tensor, y: Tensor) -> Tensor:
        """R [batch, out, column] of outputs [batch, ...], with L_i ~ R_i R_i^T for each example;
        out is flattened.
        """
        ...


@runtime_checkable
class Curvature(Protocol):
    """The Fisher information F of all conditionals: what
    `VariationalLaplaceELBO(curvature=...)` takes.
    """

    def passes(self, sites: Sequence["ConditionalSite"]) -> Iterator["BackwardPass"]:
        """Backward passes with E[sum over passes of g g^T] = F."""
        ...


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """One backward pass: g = sum over outputs of J^T cotangent; if `batched`, one g for each row
    of the cotangents.
    """

    outputs: list[Tensor]
    cotangents: list[Tensor]
    batched: bool = False


def check_way(owner: str, argument: str, way: Any, kind: type) -> None:
    """Refuse an object without the method, such as a class in the place of its instance."""
    if isinstance(way, type) or not isinstance(way, kind):
        name = way.__name__ if isinstance(way, type) else type(way).__name__
        hint = f"{name}(), an object" if isinstance(way, type) else "an object such as ExactFisher() or FisherProbes()"
        raise TypeError(f"{owner}: {argument} must be {hint} of bayesnn.guides.fisher or of your own, not {way!r}")
