"""Stochastic weight averaging, Gaussian: a normal distribution through the snapshots of a training run."""

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.guides.swag_normal import SnapshotNormal
from bayesnn.handlers import prefix_of
from bayesnn.models import BNN


class SWAG(CheckedState):
    """q(w) = N(m, (diag(v) + D D^T / (K - 1)) / 2): mean, variances and last K deviations of snapshots of the weights.

    m and v = E[(w - m)^2] are over all snapshots, the rows of D the differences of the last K of them to the running
    mean at their time. Train the network with SGD and a constant or cyclical learning rate, and collect a snapshot
    after every epoch once the loss has settled::

        for epoch in range(epochs):
            train_one_epoch(net)
            if epoch >= burn_in:
                guide.collect()

    The draws follow the noise of the optimiser: a larger learning rate gives a wider posterior, and the prior enters
    only through the weight decay of the training. Weights that are not random in the model are those of the network
    now. A network with batch normalisation needs its statistics anew for every draw, which this guide does not do: keep
    those layers out of training, or use another normalisation.

    Args:
        model: the random weights.
        rank: K, the deviations kept.

    Raises:
        ValueError: fewer than two snapshots; values that are not finite or of another shape; a state of another model.

    Reference: Maddox, Garipov, Izmailov, Vetrov, Wilson (2019), A simple baseline for Bayesian uncertainty in deep
    learning.

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
        # By products of deviations: E[w^2] - m^2 would be rounding where the snapshots lie close together.
        self.scatter += (before * (flat - self.loc) - self.scatter) / self.snapshots
        self.deviations[(self.snapshots - 1) % len(self.deviations)] = flat - self.loc

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample all blocks; the arguments are the model's and are not used."""
        name = prefix_of(self.model.name) + "_swag"
        flat = pyro.sample(name, self._joint(), infer={"is_auxiliary": True})
        sites = self.model.sites
        parts = flat.split([shape.numel() for shape in sites.values()], -1)
        return {
            site: pyro.sample(site, dist.Delta(part.reshape(part.shape[:-1] + shape), event_dim=len(shape)))
            for (site, shape), part in zip(sites.items(), parts, strict=True)
        }

    def _fingerprint(self) -> str:
        return self.model.subset.fingerprint()

    def _joint(self) -> SnapshotNormal:
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
    return torch.cat([values[site].detach().reshape(-1) for site in model.sites])
