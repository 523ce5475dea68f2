"""Stochastic weight averaging, Gaussian: a normal distribution through the
snapshots of a training run.
"""

import math
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Size, Tensor
from torch.distributions import constraints

from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.handlers import prefix_of
from bayesnn.models import BNN
from bayesnn.sites import from_vector, to_vector

_COLUMNS = 2**18
"""Weights that are taken to double precision at once."""

_ONE = Size()


class SWAG(CheckedState):
    """q(w) = N(m, (diag(v) + D D^T / (K - 1)) / 2): mean, variances and last K deviations of
    snapshots of the weights.

    m and v = E[(w - m)^2] are over all snapshots, the rows of D the differences of the last K of
    them to the running mean at their time. Train the network with SGD and a constant or cyclical
    learning rate, and collect a snapshot after every epoch once the loss has settled::

        for epoch in range(epochs):
            train_one_epoch(net)
            if epoch >= burn_in:
                guide.collect()

    The draws follow the noise of the optimiser: a larger learning rate gives a wider posterior,
    and the prior enters only through the weight decay of the training. Weights that are not random
    in the model are those of the network now. A network with batch normalisation needs its
    statistics anew for every draw, which this guide does not do: keep those layers out of
    training, or use another normalisation.

    Args:
        model: the random weights.
        rank: K, the deviations kept.

    Raises:
        ValueError: fewer than two snapshots; values that are not finite or of another shape; a
            state of another model.

    Reference: Maddox, Garipov, Izmailov, Vetrov, Wilson (2019), A simple baseline for Bayesian
    uncertainty in deep learning.

    >>> from torch import nn
    >>> from bayesnn import likelihoods, priors, subset
    >>> net = nn.Linear(3, 1)
    >>> guide = SWAG(BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0)))
    >>> for _ in range(5):
    ...     with torch.no_grad():
    ...         net.weight += 0.1 * torch.randn(1, 3)  # your training
    ...     guide.collect()
    >>> guide()["weight"].shape, int(guide.snapshots)
    (torch.Size([1, 3]), 5)
    """

    loc: Tensor
    scatter: Tensor
    deviations: Tensor
    snapshots: Tensor

    def __init__(self, model: BNN, rank: int = 20) -> None:
        super().__init__()
        if rank < 2:
            raise ValueError(f"SWAG: at least two deviations make a covariance, not rank = {rank}")
        self._model = (model,)
        start = _flat(model, model.values())
        self.register_buffer("loc", torch.zeros_like(start))
        self.register_buffer("scatter", torch.zeros_like(start))
        self.register_buffer("deviations", start.new_zeros(rank, len(start)))
        self.register_buffer("snapshots", torch.zeros((), dtype=torch.long))

    @property
    def model(self) -> BNN:
        """The model whose weights these are."""
        return self._model[0]

    @property
    def variance(self) -> Tensor:
        """The marginal variances of q, [param]."""
        joint = self._joint()
        return joint.diagonal + joint.scale**2 * joint.deviations.square().sum(0)

    @torch.no_grad()
    def collect(self, values: Mapping[str, Tensor] | None = None) -> None:
        """Add a snapshot: {site: value}, or what the network holds now."""
        flat = _flat(self.model, self.model.values() if values is None else values)
        if not bool(torch.isfinite(flat).all()):
            raise ValueError("SWAG: the weights are not finite; was the learning rate too large? Nothing was collected")
        self.snapshots += 1
        before = flat - self.loc
        self.loc += before / self.snapshots
        # By products of deviations: E[w^2] - m^2 would be rounding where the snapshots lie close
        # together.
        self.scatter += (before * (flat - self.loc) - self.scatter) / self.snapshots
        self.deviations[(self.snapshots - 1) % len(self.deviations)] = flat - self.loc

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample all blocks; the arguments are the model's and are not used."""
        name = prefix_of(self.model.name) + "_swag"
        flat = pyro.sample(name, self._joint(), infer={"is_auxiliary": True})
        sites = self.model.sites
        return {
            site: pyro.sample(site, dist.Delta(value, event_dim=len(sites[site])))
            for site, value in from_vector(flat, sites).items()
        }

    def _fingerprint(self) -> str:
        return self.model.subset.fingerprint()

    def _joint(self) -> "SnapshotNormal":
        """N(m, (diag(v) + D^T D / (K - 1)) / 2) over all weights in one vector."""
        kept = min(int(self.snapshots), len(self.deviations))
        if kept < 2:
            raise ValueError(f"SWAG: {kept} snapshots make no distribution; call collect() after at least two epochs")
        # A weight that never moved has no variance: that of its rounding keeps the density finite.
        limits = torch.finfo(self.loc.dtype)
        smallest = (limits.eps * self.loc).square().clamp(min=limits.tiny**0.5)
        return SnapshotNormal(
            self.loc, self.deviations[:kept], (2 * (kept - 1)) ** -0.5, self.scatter.max(smallest) / 2
        )


def _flat(model: BNN, values: Mapping[str, Tensor]) -> Tensor:
    """All blocks in one vector."""
    for site, shape in model.sites.items():
        found = values[site].shape if site in values else None
        if found != shape:
            what = "no value" if found is None else f"a value of shape {tuple(found)}"
            raise ValueError(f"SWAG: the block {site!r} has shape {tuple(shape)}, but the snapshot has {what} for it")
    return to_vector(values, model.sites).detach()


class SnapshotNormal(dist.TorchDistribution):
    """N(m, diag(v) + a^2 D^T D) over a vector, with few rows of D.

    As torch's `LowRankMultivariateNormal`, whose constructor factorises I + a^2 D diag(v)^-1 D^T
    in single precision: its eigenvalues reach the number of weights times that of snapshots, and
    the factorisation fails. Here draws need none, and the density has it in double precision.

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
