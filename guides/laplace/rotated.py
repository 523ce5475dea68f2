"""Normal posteriors whose covariance is diagonal in a basis of its own for each block."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from pyro import distributions as dist
from torch import Size, Tensor
from torch.distributions import constraints
from typing_extensions import override

from bayesnn.curvature.jacobian_rows import MEMORY, JacobianRows, entries, identity, one_position, slices
from bayesnn.curvature.layer_rules import Matrix
from bayesnn.curvature.layers import Pass
from bayesnn.functional import Inputs, chunks, memory
from bayesnn.guides.laplace.structure import Posterior
from bayesnn.sites import from_vector

EXAMPLES = 64
"""Examples whose passes back to the layers are held together, one a class."""


@dataclass
class Basis:
    """The eigenbasis of one block: its value w, seen as [group, out, in], is `left` z `right`^T
    with independent z.

    Attributes:
        shape: of the block's value.
        values: eigenvalues of H, [group, out, in].
        left, right: [group, out, out], [group, in, in]; None = the identity.
    """

    shape: Size
    values: Tensor
    left: Tensor | None = None
    right: Tensor | None = None

    def turn(self, w: Tensor) -> Tensor:
        """z = left^T w right: [*lead, *shape] -> [*lead, group, out, in]."""
        z = w.reshape(w.shape[: w.dim() - len(self.shape)] + self.values.shape)
        z = z if self.left is None else _times(z.mT, self.left).mT
        return z if self.right is None else _times(z, self.right)

    def back(self, z: Tensor) -> Tensor:
        """w = left z right^T: [*lead, group, out, in] -> [*lead, *shape]."""
        w = z if self.left is None else _times(z.mT, self.left.mT).mT
        w = w if self.right is None else _times(w, self.right.mT)
        return w.reshape(w.shape[:-3] + self.shape)


class RotatedNormal(dist.TorchDistribution):
    """N(loc, U diag(scale^2) U^T) of one block, U its eigenbasis; event shape
    that of the block.
    """

    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, basis: Basis) -> None:
        self.loc, self.scale, self.basis = loc, scale, basis
        super().__init__(Size(), basis.shape, validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        return self.loc

    @property
    @override
    def variance(self) -> Tensor:
        z = self.scale**2
        z = z if self.basis.left is None else self.basis.left**2 @ z
        z = z if self.basis.right is None else z @ (self.basis.right**2).mT
        return z.reshape(self.basis.shape)

    @override
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = torch.randn(Size(sample_shape) + self.scale.shape, dtype=self.scale.dtype, device=self.scale.device)
        return self.loc + self.basis.back(noise * self.scale)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        z = self.basis.turn(value - self.loc)
        return torch.distributions.Normal(0.0, self.scale, validate_args=False).log_prob(z).sum((-1, -2, -3))

    @override
    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> dist.TorchDistribution:
        if Size(batch_shape):  # all draws share one posterior
            return dist.ExpandedDistribution(self, Size(batch_shape))
        return self


class RotatedPosterior(Posterior):
    """Independent blocks, z ~ N(0, scale^2) in each one's basis."""

    def __init__(self, bases: Mapping[str, Basis], scales: Mapping[str, Tensor]) -> None:
        self.bases, self.scales = bases, scales
        self.shapes = {name: basis.shape for name, basis in bases.items()}

    @override
    def distributions(self, loc: dict[str, Tensor]) -> dict[str, dist.TorchDistribution]:
        return {name: RotatedNormal(loc[name], self.scales[name], basis) for name, basis in self.bases.items()}

    @override
    def conditional(self, block: str, loc: Tensor, entries: slice) -> dist.TorchDistribution:
        return RotatedNormal(loc, self.scales[block], self.bases[block])

    def covariance(self) -> Tensor:
        """Sigma, [param, param], block-diagonal."""
        k = sum(basis.values.numel() for basis in self.bases.values())
        like = next(iter(self.scales.values()))
        memory.require(
            2 * like.element_size() * k**2,
            like.device,
            f"the covariance of {k:,} weights as one matrix",
            "use draws, or `posterior.distributions(...)` for the variances of each block",
        )
        blocks = []
        for name, basis in self.bases.items():
            count = basis.values.numel()
            eye = torch.eye(count, dtype=like.dtype, device=like.device)
            half = self._half(name, eye.reshape(count, *basis.shape)).flatten(1)
            blocks.append(half @ half.mT)
        return torch.block_diag(*blocks)

    @override
    def quadratic(self, vector: Tensor) -> Tensor:
        parts = from_vector(vector, self.shapes)
        return torch.stack([self._half(name, part).square().sum() for name, part in parts.items()]).sum()

    def output_variances(self, rows: JacobianRows, x: Inputs, *, diagonal: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs and their variances, layer by layer.

        For a layer of one position no derivative of the size of its weights is formed.
        """
        for part in chunks(x, EXAMPLES):
            done = rows.layers(part)
            if done is None:
                for _, outputs, jac in rows.chunks(part, identity):
                    yield outputs, self._of_rows(jac, diagonal=diagonal)
            else:
                yield done.outputs.detach(), self._of_layers(done, rows, diagonal=diagonal)

    def _half(self, name: str, value: Tensor) -> Tensor:
        """scale U^T w of one block, [*lead, group, out, in]."""
        return self.bases[name].turn(value) * self.scales[name]

    def _of_rows(self, jac: Tensor, *, diagonal: bool) -> Tensor:
        halves = [self._half(name, part).flatten(2) for name, part in from_vector(jac, self.shapes).items()]
        return sum((_product(half, diagonal=diagonal) for half in halves), jac.new_zeros(()))

    def _of_layers(self, done: Pass, rows: JacobianRows, *, diagonal: bool) -> Tensor:
        seeds = identity(done.outputs.detach())
        count = seeds.shape[-1]
        derivatives = [done.back(seeds[..., c].reshape(done.outputs.shape), last=c == count - 1) for c in range(count)]
        blocks = [
            self._of_block(name, rows, done, derivatives, diagonal=diagonal) for name in self.bases if name in done.uses
        ]
        return sum(blocks, seeds.new_zeros(len(seeds), *(count,) * (1 if diagonal else 2)))

    def _of_block(
        self, name: str, rows: JacobianRows, done: Pass, derivatives: list[dict[int, Tensor]], *, diagonal: bool
    ) -> Tensor:
        basis, scale = self.bases[name], self.scales[name]
        uses = done.uses[name]
        if len(uses) == 1 and rows.index[name] is None and one_position(uses[0], name):
            (use,) = uses
            assert isinstance(use, Matrix)
            a = use.rows[:, 0, 0]
            a = a if basis.right is None else a @ basis.right[0]
            # of each z, seen through the input, [batch, out]
            deviation = (a**2 @ (scale[0] ** 2).mT).sqrt()
            # [batch, class, out]
            g = torch.stack([use.cotangent(g[id(use)])[:, 0, 0] for g in derivatives], 1)
            g = g if basis.left is None else g @ basis.left[0]
            return _product(g * deviation.unsqueeze(1), diagonal=diagonal)
        nothing = scale.new_zeros(())
        if (chosen := rows.index[name]) is not None:
            takers = [(use, entries(use, use.roles[name], chosen)) for use in uses]
            jac = torch.stack([sum((take(g[id(use)]) for use, take in takers), nothing) for g in derivatives], 1)
            return _product((basis.turn(jac) * scale).flatten(2), diagonal=diagonal)
        parts = []
        numbers = basis.values.numel() * len(derivatives)
        for part in slices(len(done.outputs), max(1, MEMORY // (numbers * scale.element_size()))):
            gradients = [[use.gradients(use.roles[name], g[id(use)], part) for use in uses] for g in derivatives]
            jac = torch.stack([sum(one, nothing) for one in gradients], 1)
            parts.append(_product((basis.turn(jac) * scale).flatten(2), diagonal=diagonal))
        return torch.cat(parts)


def _times(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, [*lead, group, rows, n] times [group, n, columns]: for one group a single product
    instead of many.
    """
    return a @ b[0] if len(b) == 1 else a @ b


def _product(half: Tensor, *, diagonal: bool) -> Tensor:
    return half.square().sum(-1) if diagonal else half @ half.mT
