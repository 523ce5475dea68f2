"""Full covariance over the random weights: for a last layer or a sub-network of
up to some ten thousand.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from typing_extensions import override

from bayesnn.curvature.jacobian_rows import EXAMPLES, MEMORY, JacobianRows, identity
from bayesnn.functional import Inputs, chunks, memory
from bayesnn.guides.laplace.data_pass import BatchTargets, DataPass
from bayesnn.guides.laplace.last_layer import LastLayerCurvature, add_last_layer, last_layer_inputs
from bayesnn.guides.laplace.structure import OnePass, Posterior
from bayesnn.models import BNN

DOUBLE = 4096
"""Up to so many weights all sums are in double precision: batches are many, and
small eigenvalues matter.
"""


class Full(OnePass):
    """H as one matrix, [param, param]: exact.

    The time of a fit grows with the square of the number of random weights, that of the first
    prediction with its cube. A whole linear last layer is summed in closed form from its inputs.

    Raises:
        MemoryError: it needs more memory than there is.

    Reference: MacKay (1992), A practical Bayesian framework for backpropagation networks; for a
    sub-network Daxberger, Nalisnick, Allingham, Antoran, Hernández-Lobato (2021).
    """

    H: Tensor

    def __init__(self, model: BNN, rows: JacobianRows) -> None:
        super().__init__(model, rows)
        k = len(model.subset)
        like = next(iter(rows.values.values()))
        self.dtype = torch.double if k <= DOUBLE else like.dtype
        memory.require(
            # H, and a root of (H + P)^-1 with the room to find it
            4 * torch.finfo(self.dtype).bits // 8 * k * k,
            like.device,
            f"Laplace: the full covariance of {k:,} weights",
            "choose a smaller subset, last_layer(net) or largest_variance(net, loader, likelihood, k=2_000), or "
            "structure=Kronecker or Diagonal",
        )
        self.register_buffer("H", torch.zeros(k, k, dtype=self.dtype, device=like.device))
        self._last: LastLayerCurvature | None = None
        self._general = False  # whether a batch has shown that there is no linear last layer

    @override
    def collect(self, data: DataPass) -> None:
        super().collect(data)
        if self._last is not None:
            self._last.flush()

    def add(self, x: Inputs, targets: BatchTargets) -> None:
        """Add one batch: from the inputs of a linear last layer, otherwise by
        rows of the Jacobian.
        """
        if not self._general:
            last = add_last_layer(self._last, self.rows, x, targets, self.dtype)
            if last is not None:
                self._last = last
                return
            self._general = True
        for _, _, part in self.rows.chunks(x, targets.roots):
            flat = part.flatten(0, 1)
            if flat.dtype == self.dtype:
                self.H.addmm_(flat.mT, flat)  # in place: H may be most of the memory
            else:
                self.H += flat.mT @ flat

    @property
    def matrix(self) -> Tensor:
        """The matrix H, [param, param]."""
        if self._last is not None:
            self.H += self._last.matrix(bias=len(self.rows.index) == 2)
            self._last = None
        return self.H

    @torch.no_grad()
    @override
    def spectrum(self, precision: Tensor) -> Tensor:
        root = precision.sqrt().to(self.dtype)
        matrix = self.matrix / root
        matrix /= root.unsqueeze(-1)
        values = torch.linalg.eigvalsh(matrix).double()
        _check_definite(values)
        return values.clamp(min=0)

    def log_ratio(self, precision: Tensor) -> Tensor:
        """log |H + P| - log |P|, by a Cholesky factor."""
        root = torch.linalg.cholesky(self.matrix.double() + torch.diag(precision))
        return 2 * root.diagonal().log().sum() - precision.log().sum()

    @torch.no_grad()
    @override
    def posterior(self, precision: Tensor, scale: float) -> "FullPosterior":
        if not bool(torch.isfinite(self.matrix).all()):
            raise ValueError("Laplace: the curvature is not finite; are the likelihood's fisher and the derivatives?")
        turned = self.matrix.flip(0, 1).mul_(scale)
        turned.diagonal().add_(precision.flip(0).to(self.dtype))
        root, failed = torch.linalg.cholesky_ex(turned)
        if bool(failed):
            _check_definite(torch.linalg.eigvalsh(self.matrix.double() * scale + torch.diag(precision)))
            root = torch.linalg.cholesky(turned.double()).to(self.dtype)
        del turned
        # With the rows of H + P = U^T U turned, U^T is lower triangular, and so is U^-1: U^-1
        # U^-T = (H + P)^-1.
        inverse = root.flip(0, 1).mT
        del root
        eye = torch.eye(len(inverse), dtype=inverse.dtype, device=inverse.device)
        scale_tril = torch.linalg.solve_triangular(inverse, eye, upper=False)
        return FullPosterior(scale_tril.to(next(iter(self.rows.values.values())).dtype))

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        _ = self.matrix
        super()._save_to_state_dict(*args, **kwargs)


class FullPosterior(Posterior):
    """N(w*, L L^T).

    Attributes:
        scale_tril: L, [param, param], lower triangular.
    """

    def __init__(self, scale_tril: Tensor) -> None:
        self.scale_tril = scale_tril
        self._pairs: Tensor | None = None
        self._own: Tensor | None = None
        self._general = False  # whether inputs have shown that there is no linear last layer

    @override
    def joint(self, loc: Tensor) -> dist.TorchDistribution:
        return dist.MultivariateNormal(loc, scale_tril=self.scale_tril, validate_args=False)

    def conditional(self, block: str, loc: Tensor, entries: slice) -> dist.TorchDistribution:
        """The distribution of one block, whose precision is the block of the precision."""
        columns = torch.eye(len(self.scale_tril), dtype=self.scale_tril.dtype, device=self.scale_tril.device)[
            :, entries
        ]
        half = torch.linalg.solve_triangular(self.scale_tril, columns, upper=False)
        return dist.MultivariateNormal(loc.flatten(), precision_matrix=half.mT @ half, validate_args=False)

    @override
    def covariance(self) -> Tensor:
        return self.scale_tril @ self.scale_tril.mT

    def output_variances(self, rows: JacobianRows, x: Inputs, *, diagonal: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs, and their variances from J L or, for a linear last layer, by pairs of classes.

        There they are phi^T Sigma_cd phi.
        """
        for part in chunks(x, EXAMPLES):
            layer = None if self._general else last_layer_inputs(rows, part)
            if layer is not None:
                variances = self._last_layer(*layer, bias=len(rows.index) == 2, diagonal=diagonal)
                yield layer[0], variances
                continue
            self._general = True
            for _, outputs, jac in rows.chunks(part, identity):
                half = self._times_root(jac)
                yield outputs, half.square().sum(-1) if diagonal else half @ half.mT

    @override
    def quadratic(self, vector: Tensor) -> Tensor:
        return (vector @ self.scale_tril).square().sum()

    def _times_root(self, jac: Tensor) -> Tensor:
        """J L, in four blocks of columns: L is triangular, and three eighths of
        the product are zeros.
        """
        k = len(self.scale_tril)
        bounds = [k * block // 4 for block in range(5)]
        parts = [jac[..., a:] @ self.scale_tril[a:, a:b] for a, b in pairwise(bounds)]
        return torch.cat(parts, -1)

    def _last_layer(self, outputs: Tensor, features: Tensor, *, bias: bool, diagonal: bool) -> Tensor:
        """[batch, class, class] or [batch, class]."""
        classes, width = outputs.shape[1], features.shape[1]
        first, second = torch.triu_indices(classes, classes, device=outputs.device)
        if self._pairs is None:
            blocks = _by_feature(self.covariance(), classes, width, bias=bias)
            # [feature, pair, feature]
            self._pairs = blocks[first, second].transpose(0, 1).contiguous()
            self._own = self._pairs[:, first == second]
        pairs = self._own if diagonal else self._pairs
        assert pairs is not None
        step = max(1, MEMORY // (4 * pairs[0].numel() * pairs.element_size()))
        by_pair = torch.cat(
            [
                torch.einsum("bpg,bg->bp", (phi @ pairs.flatten(1)).unflatten(1, (-1, width)), phi)
                for phi in features.split(step)
            ]
        )
        if diagonal:
            return by_pair
        variances = by_pair.new_empty(len(by_pair), classes, classes)
        variances[:, first, second] = by_pair
        variances[:, second, first] = by_pair
        return variances


def _by_feature(covariance: Tensor, classes: int, width: int, *, bias: bool) -> Tensor:
    """Sigma of a weight [class, feature] and, after it, a bias as blocks
    [class, class, feature, feature].
    """
    order = torch.arange(classes * width, device=covariance.device)
    if bias:
        features = classes * (width - 1)
        order = torch.cat([order[:features].reshape(classes, -1), order[features:].unsqueeze(1)], 1).flatten()
    blocks = covariance[order][:, order].reshape(classes, width, classes, width)
    return blocks.transpose(1, 2).contiguous()


def _check_definite(values: Tensor) -> None:
    if bool(values[0] < -1e-6 * values[-1].clamp(min=1.0)):
        raise ValueError(
            "Laplace: the precision is not positive definite: the curvature has the eigenvalue "
            f"{values[0].item():.3g}; is the likelihood's fisher positive semi-definite?"
        )
