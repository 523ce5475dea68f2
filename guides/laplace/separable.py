"""Curvatures with independent blocks or single weights, each with an eigenbasis of its own."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import override

from bayesnn.guides.laplace.rotated import Basis, RotatedPosterior
from bayesnn.guides.laplace.structure import OnePass
from bayesnn.sites import from_vector


class Separable(OnePass):
    """H with independent blocks, given by their eigenbases.

    One decomposition serves every prior precision.
    """

    @abstractmethod
    def bases(self) -> Mapping[str, Basis]:
        """{block: its eigenbasis}."""

    @override
    def spectrum(self, precision: Tensor) -> Tensor:
        return torch.cat([(values / p).flatten() for values, p in self._pairs(precision).values()])

    @override
    def log_ratio(self, precision: Tensor) -> Tensor:
        return torch.stack([(values / p).log1p().sum() for values, p in self._pairs(precision).values()]).sum()

    @override
    def posterior(self, precision: Tensor, scale: float) -> RotatedPosterior:
        dtype = next(iter(self.rows.values.values())).dtype
        scales = {name: (scale * values + p).rsqrt().to(dtype) for name, (values, p) in self._pairs(precision).items()}
        return RotatedPosterior(self.bases(), scales)

    def _pairs(self, precision: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """{block: (eigenvalues, prior precisions that broadcast to them)}, in double precision."""
        bases = self.bases()
        pairs = {}
        parts = from_vector(precision, {name: basis.shape for name, basis in bases.items()})
        for name, basis in bases.items():
            values, part = basis.values.double(), parts[name]
            if basis.left is None and basis.right is None:
                pairs[name] = (values, part.reshape(values.shape))
            elif bool(part.detach().max() > part.detach().min() * (1 + 1e-5)):
                raise ValueError(
                    f"{type(self).__name__}: the prior of {name!r} has several precisions, but its eigenbasis is that "
                    "of the curvature alone; give a block one prior scale, or use Diagonal or Full"
                )
            else:
                pairs[name] = (values, part.mean())
        return pairs
