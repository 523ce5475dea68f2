"""A variance for every weight, and no covariances."""

from collections.abc import Mapping

import torch
from torch import Size, Tensor
from typing_extensions import override

from bayesnn.curvature import JacobianRows
from bayesnn.curvature.diagonal import ggn_diagonal
from bayesnn.functional import Inputs
from bayesnn.guides.laplace.data_pass import BatchTargets
from bayesnn.guides.laplace.rotated import Basis
from bayesnn.guides.laplace.separable import Separable
from bayesnn.models import BNN


class Diagonal(Separable):
    """diag(H) = sum_i diag(J_i^T L_i J_i), exact for exact Fisher roots; any subset, any normal
    prior.

    The cheapest in memory, and the coarsest: it takes each weight's variance given all others, so
    that predictions are too certain where weights compensate one another.

    Reference: LeCun, Denker, Solla (1990); Ritter, Botev, Barber (2018), A scalable Laplace
    approximation.
    """

    diagonal: Tensor

    def __init__(self, model: BNN, rows: JacobianRows) -> None:
        super().__init__(model, rows)
        like = next(iter(rows.values.values()))
        self.register_buffer("diagonal", torch.zeros(rows.count, dtype=torch.double, device=like.device))

    @override
    def add(self, x: Inputs, targets: BatchTargets) -> None:
        self.diagonal += ggn_diagonal(self.rows, x, targets.roots)

    def bases(self) -> Mapping[str, Basis]:
        """{block: its eigenbasis}, which is that of the single weights."""
        bases = {}
        for name, chosen in self.rows.index.items():
            shape = self.rows.values[name].shape if chosen is None else Size([len(chosen)])
            values = self.diagonal[self.rows.places[name]]
            bases[name] = Basis(shape, values.reshape(1, shape[0] if len(shape) > 1 else 1, -1))
        return bases
