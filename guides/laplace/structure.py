"""What a structure of the curvature offers to the Laplace guide."""

from collections.abc import Iterator
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.curvature import JacobianRows
from bayesnn.functional import Inputs
from bayesnn.guides.laplace.data_pass import DataPass, FisherRoots
from bayesnn.models import BNN


class Structure(nn.Module):
    """H = sum_i J_i^T L_i J_i over the training data, in some form, and what follows from it.

    Buffers hold the sums, so that a state dict has them and more data can be added. Weights are flat, in the order of
    the model's blocks; every `precision` is the diagonal of P, [param], in double precision.

    Args:
        model: what is random.
        rows: derivatives of the network at the mode.
    """

    def __init__(self, model: BNN, rows: JacobianRows) -> None:
        super().__init__()
        self._model = (model,)
        self._rows = (rows,)

    @property
    def rows(self) -> JacobianRows:
        """Derivatives of the network at the mode."""
        return self._rows[0]

    def at(self, rows: JacobianRows) -> None:
        """Take the derivatives from elsewhere: the mode was moved to another device."""
        self._rows = (rows,)

    def collect(self, sweep: DataPass) -> None:
        """Sum over the training data, in one pass or several."""
        sweep(self.add)

    def add(self, x: Inputs, roots: FisherRoots) -> None:
        """Add one batch to the sums."""
        raise NotImplementedError

    def spectrum(self, precision: Tensor) -> Tensor:
        """The eigenvalues of P^-1/2 H P^-1/2, those that are not zero at least, in double precision."""
        raise NotImplementedError

    def log_ratio(self, precision: Tensor) -> Tensor:
        """log |H + P| - log |P|, differentiable in the precision."""
        raise NotImplementedError

    def posterior(self, precision: Tensor, scale: float) -> "Posterior":
        """N(w*, (scale H + P)^-1)."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Sums that came up during a fit come up here too."""
        for key, value in state_dict.items():
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and name not in self._buffers:
                like = next(iter(self.rows.values.values()))
                self.register_buffer(name, torch.empty_like(value, device=like.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


class Posterior:
    """N(w*, Sigma) in some form."""

    def joint(self, loc: Tensor) -> dist.TorchDistribution | None:
        """Of all weights, [param]; None where blocks are independent, with `distributions` of their own."""
        return None

    def distributions(self, loc: dict[str, Tensor]) -> dict[str, dist.TorchDistribution]:
        """{block: its distribution}, for posteriors whose blocks are independent."""
        raise NotImplementedError

    def conditional(self, block: str, loc: Tensor, entries: slice) -> dist.TorchDistribution:
        """Of one block, with all other weights at the mode: of the block's shape, or flat, [entry].

        `loc` is the block's mode, `entries` its place among all weights.
        """
        raise NotImplementedError

    def covariance(self) -> Tensor:
        """Sigma, [param, param]."""
        raise NotImplementedError

    def quadratic(self, vector: Tensor) -> Tensor:
        """v^T Sigma v of a vector [param]."""
        raise NotImplementedError

    def output_variances(self, rows: JacobianRows, x: Inputs, *, diagonal: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """(outputs [batch, out], J Sigma J^T [batch, out, out] or its diagonal [batch, out]) in chunks of examples."""
        raise NotImplementedError
