"""Normal distributions whose precision is diagonal but for a few directions."""

import math
from collections.abc import Iterator, Sequence

import torch
from pyro import distributions as dist
from torch import Size, Tensor
from torch.distributions import constraints
from typing_extensions import override

from bayesnn.curvature.ggn_products import GGNProducts
from bayesnn.curvature.jacobian_rows import JacobianRows, identity
from bayesnn.functional import Inputs, chunks, memory
from bayesnn.guides.laplace.rotated import EXAMPLES, Basis, RotatedPosterior
from bayesnn.guides.laplace.structure import Posterior

ROWS = 4096
"""Up to so many weights an example's derivatives are formed: no rounding, where the data take most
of the variance.
"""


class LowRankNormal(dist.TorchDistribution):
    """N(loc, S (1 + U^T diag(m) U)^-1 S) with S = diag(scale) and orthonormal rows of U.

    Drawn as loc + S (e + U^T diag((1 + m)^-1/2 - 1) U e), e ~ N(0, 1).

    Args:
        loc: [param].
        scale: [param].
        directions: U, [rank, param].
        gains: m, [rank].
    """

    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, directions: Tensor, gains: Tensor) -> None:
        self.loc, self.scale, self.directions, self.gains = loc, scale, directions, gains
        super().__init__(Size(), loc.shape, validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        return self.loc

    @property
    @override
    def variance(self) -> Tensor:
        share = self.gains / (1 + self.gains)
        return self.scale**2 * (1 - (self.directions**2 * share.unsqueeze(-1)).sum(0))

    @override
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        e = torch.randn(*sample_shape, len(self.loc), dtype=self.loc.dtype, device=self.loc.device)
        shrink = (1 + self.gains).rsqrt() - 1
        return self.loc + self.scale * (e + ((e @ self.directions.mT) * shrink) @ self.directions)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        square = z.square().sum(-1) + ((z @ self.directions.mT).square() * self.gains).sum(-1)
        log_root = 0.5 * self.gains.log1p().sum() - self.scale.log().sum()
        return log_root - 0.5 * square - 0.5 * len(self.loc) * math.log(2 * math.pi)

    @override
    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> dist.TorchDistribution:
        if Size(batch_shape):  # all draws share one posterior
            return dist.ExpandedDistribution(self, Size(batch_shape))
        return self


class LowRankPosterior(Posterior):
    """N(w*, S (1 + U^T diag(m) U)^-1 S), a `LowRankNormal`."""

    def __init__(self, scale: Tensor, directions: Tensor, gains: Tensor) -> None:
        self.scale, self.directions, self.gains = scale, directions, gains

    @override
    def joint(self, loc: Tensor) -> LowRankNormal:
        return LowRankNormal(loc, self.scale, self.directions, self.gains)

    def conditional(self, block: str, loc: Tensor, entries: slice) -> LowRankNormal:
        """The distribution of one block, with the directions cut to it and orthonormal again."""
        half = self.directions[:, entries] * self.gains.sqrt().unsqueeze(-1)
        gains, turn = torch.linalg.eigh(half @ half.mT)
        there = gains > gains.max() * len(gains) * torch.finfo(gains.dtype).eps
        gains, turn = gains[there], turn[:, there]
        directions = (turn / gains.sqrt()).mT @ half
        return LowRankNormal(loc.flatten(), self.scale[entries], directions, gains)

    def covariance(self) -> Tensor:
        """Sigma, [param, param], for few weights.

        Raises:
            MemoryError: it needs more memory than there is.
        """
        k = len(self.scale)
        memory.require(
            2 * k * k * self.scale.element_size(),
            self.scale.device,
            f"Laplace: the covariance of {k:,} weights as one matrix",
            "draw from the guide or ask for its output_distribution(x), which need only the factors",
        )
        half = self.directions * (self.gains / (1 + self.gains)).sqrt().unsqueeze(-1)
        matrix = half.mT @ half
        matrix.neg_().diagonal().add_(1)
        return matrix.mul_(self.scale).mul_(self.scale.unsqueeze(-1))

    def output_variances(self, rows: JacobianRows, x: Inputs, *, diagonal: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs, and their variances from J S.

        J S is split into its part in the directions, which the data shrink, and the rest.

        Of many weights, the prior's variances by layers less what the data take away: J S is never
        formed.
        """
        if rows.count > ROWS:
            yield from self._by_layers(rows, x, diagonal=diagonal)
            return
        shrink = (1 + self.gains).rsqrt()
        for _, outputs, jac in rows.chunks(x, identity):
            half = jac * self.scale
            inside = half @ self.directions.mT
            half -= inside @ self.directions
            inside *= shrink
            if diagonal:
                yield outputs, half.square().sum(-1) + inside.square().sum(-1)
            else:
                yield outputs, half @ half.mT + inside @ inside.mT

    def _by_layers(self, rows: JacobianRows, x: Inputs, *, diagonal: bool) -> Iterator[tuple[Tensor, Tensor]]:
        bases, scales = {}, {}
        for name, chosen in rows.index.items():
            shape = rows.values[name].shape if chosen is None else Size([len(chosen)])
            scale = self.scale[rows.places[name]].reshape(1, shape[0] if len(shape) > 1 else 1, -1)
            bases[name], scales[name] = Basis(shape, torch.ones_like(scale)), scale
        prior, products = RotatedPosterior(bases, scales), GGNProducts(rows)
        taken = self.directions * (self.gains / (1 + self.gains)).sqrt().unsqueeze(-1) * self.scale
        for part in chunks(x, EXAMPLES):
            parts = list(prior.output_variances(rows, part, diagonal=diagonal))
            inside = products.tangents(part, taken).movedim(0, 2)
            less = inside.square().sum(-1) if diagonal else inside @ inside.mT
            variance = torch.cat([one for _, one in parts]) - less
            yield torch.cat([outputs for outputs, _ in parts]), variance.clamp(min=0) if diagonal else variance

    @override
    def quadratic(self, vector: Tensor) -> Tensor:
        half = vector * self.scale
        inside = self.directions @ half
        return (half - inside @ self.directions).square().sum() + (inside.square() / (1 + self.gains)).sum()
