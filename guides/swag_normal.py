"""A normal distribution through snapshots, stable where they are many and lie close together."""

import math
from typing import Any

import torch
from pyro import distributions as dist
from torch import Size, Tensor
from torch.distributions import constraints

_COLUMNS = 2**18
"""Weights that are taken to double precision at once."""

_ONE = Size()


class SnapshotNormal(dist.TorchDistribution):
    """N(m, diag(v) + a^2 D^T D) over a vector, with few rows of D.

    As torch's `LowRankMultivariateNormal`, whose constructor factorises I + a^2 D diag(v)^-1 D^T in single precision:
    its eigenvalues reach the number of weights times that of snapshots, and the factorisation fails. Here draws need
    none, and the density has it in double precision.

    Args:
        loc: m, [param].
        deviations: D, [deviation, param].
        scale: a.
        diagonal: v, [param].

    >>> normal = SnapshotNormal(torch.zeros(3), torch.ones(1, 3), 1.0, torch.ones(3))
    >>> normal.log_prob(torch.zeros(3))                             # -3/2 log(2 pi) - 1/2 log 4
    tensor(-3.4500)
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, deviations: Tensor, scale: float, diagonal: Tensor, batch_shape: Size = _ONE
    ) -> None:
        self.loc, self.deviations, self.scale, self.diagonal = loc, deviations, scale, diagonal
        super().__init__(batch_shape, loc.shape, validate_args=False)

    def expand(self, batch_shape: Size | list[int] | tuple[int, ...], _instance: Any = None) -> "SnapshotNormal":
        """Independent copies."""
        return SnapshotNormal(self.loc, self.deviations, self.scale, self.diagonal, Size(batch_shape))

    def rsample(self, sample_shape: Size | list[int] | tuple[int, ...] = _ONE) -> Tensor:
        """m + v^1/2 e + a D^T k, e and k standard normal."""
        shape = self._extended_shape(Size(sample_shape))
        along = torch.randn(shape[:-1] + self.deviations.shape[:1], dtype=self.loc.dtype, device=self.loc.device)
        own = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, self.diagonal.sqrt(), own) + (self.scale * along) @ self.deviations

    def log_prob(self, value: Tensor) -> Tensor:
        """log q, by Woodbury's identity and the determinant lemma."""
        rows, (count,) = len(self.deviations), self.event_shape
        inner = torch.eye(rows, dtype=torch.double, device=value.device)
        squares = value.new_zeros(value.shape[:-1], dtype=torch.double)
        along = value.new_zeros((*value.shape[:-1], rows), dtype=torch.double)
        log_det = value.new_zeros((), dtype=torch.double)
        for start in range(0, count, _COLUMNS):
            part = slice(start, start + _COLUMNS)
            variance = self.diagonal[part].double()
            whitened = (value[..., part].double() - self.loc[part].double()) * variance.rsqrt()
            factor = self.scale * self.deviations[:, part].double() * variance.rsqrt()
            inner = inner + factor @ factor.mT
            squares = squares + whitened.square().sum(-1)
            along = along + whitened @ factor.mT
            log_det = log_det + variance.log().sum()
        root = torch.linalg.cholesky(inner)
        removed = torch.linalg.solve_triangular(root, along.unsqueeze(-1), upper=False).square().sum((-2, -1))
        log_det = log_det + 2 * root.diagonal().log().sum()
        found = -0.5 * (count * math.log(2 * math.pi) + log_det + squares - removed)
        return found.to(value.dtype).expand(torch.broadcast_shapes(found.shape, self.batch_shape))
