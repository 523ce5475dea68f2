"""The base classes of the structures of the curvature, and of the posteriors that they give."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, TypeAlias

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from typing_extensions import override

from bayesnn.curvature import JacobianRows
from bayesnn.functional import Inputs
from bayesnn.guides.laplace.data_pass import BatchTargets, DataPass
from bayesnn.models import BNN


class Structure(nn.Module, ABC):
    """H = sum_i J_i^T L_i J_i over the training data, in some form, and what follows from it.

    Buffers hold the sums, so that a state dict has them and more data can be added. Weights are
    flat, in the order of the model's blocks; every `precision` is the diagonal of P, [param], in
    double precision.

    Args:
        model: what is random.
        rows: derivatives of the network at the mode.

    Attributes:
        uses_fisher: whether it needs the Fisher information of y in the outputs, L_i.
    """

    uses_fisher: ClassVar[bool] = True

    def __init__(self, model: BNN, rows: JacobianRows) -> None:
        super().__init__()
        self._model = (model,)
        self._rows = (rows,)

    @property
    def rows(self) -> JacobianRows:
        """The derivatives of the network at the mode."""
        return self._rows[0]

    def at(self, rows: JacobianRows) -> None:
        """Take the derivatives on another device, to which the mode was moved."""
        self._rows = (rows,)

    @abstractmethod
    def collect(self, data: DataPass) -> None:
        """Sum over the training data.

        It calls `data(add)` once or several times; `add` is a `data_pass.Add`.
        """

    @abstractmethod
    def spectrum(self, precision: Tensor) -> Tensor:
        """The eigenvalues of P^-1/2 H P^-1/2, those that are not zero at least,
        in double precision.
        """

    @abstractmethod
    def log_ratio(self, precision: Tensor) -> Tensor:
        """log |H + P| - log |P|, differentiable in the precision."""

    @abstractmethod
    def posterior(self, precision: Tensor, scale: float) -> "Posterior":
        """N(w*, (scale H + P)^-1)."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Sums that came up during a fit come up here too."""
        for key, value in state_dict.items():
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and name not in self._buffers:
                like = next(iter(self.rows.values.values()))
                self.register_buffer(name, torch.empty_like(value, device=like.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


class OnePass(Structure):
    """A structure whose sums need each batch once, so that more data can be added later."""

    @override
    def collect(self, data: DataPass) -> None:
        data(self.add, type(self).__name__)

    @abstractmethod
    def add(self, x: Inputs, targets: BatchTargets) -> None:
        """Add one batch to the sums.

        The outputs of every example go to `targets.roots`, `targets.fisher` or `targets.log_prob`,
        once or several times: the log likelihood counts every example once.
        """


MakeStructure: TypeAlias = Callable[[BNN, JacobianRows], Structure]
"""(model, rows): a class of structures, or `functools.partial` of one with its options."""


def uses_fisher(make: MakeStructure) -> bool | None:
    """Whether the structures made need a Fisher information; None if a function does not tell."""
    while isinstance(make, partial):
        make = make.func
    return getattr(make, "uses_fisher", None)


class Posterior(ABC):
    """N(w*, Sigma) in some form."""

    def joint(self, loc: Tensor) -> dist.TorchDistribution | None:
        """The distribution of all weights, [param].

        It is None for independent blocks, which have `distributions` of their own.
        """
        return None

    def distributions(self, loc: dict[str, Tensor]) -> dict[str, dist.TorchDistribution]:
        """{block: its distribution}, for posteriors whose blocks are independent."""
        raise NotImplementedError

    @abstractmethod
    def conditional(self, block: str, loc: Tensor, entries: slice) -> dist.TorchDistribution:
        """The distribution of one block, with all other weights at the mode.

        It has the block's shape, or is flat, [entry].

        `loc` is the block's mode, `entries` its place among all weights.
        """

    @abstractmethod
    def covariance(self) -> Tensor:
        """Sigma, [param, param]."""

    @abstractmethod
    def quadratic(self, vector: Tensor) -> Tensor:
        """v^T Sigma v of a vector [param]."""

    @abstractmethod
    def output_variances(self, rows: JacobianRows, x: Inputs, *, diagonal: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """(outputs [batch, out], J Sigma J^T [batch, out, out] or its diagonal [batch, out]) in
        chunks of examples.
        """
