"""The latent sites of a Pyro model, read from one call of it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Size, Tensor
from torch.distributions.constraints import Constraint

from bayesnn.functional import alone
from bayesnn.handlers import prefix_of
from bayesnn.models import BNN
from bayesnn.sites import base_of, latent_nodes


@dataclass(frozen=True)
class LatentSite:
    """A latent site of a model, as a guide needs it.

    Attributes:
        support: of the distribution without its independent axes.
        event_dim: axes of one event.
        shape: of the value, plates included.
        plates: (name, size, dim) of the plates around it.
    """

    support: Constraint
    event_dim: int
    shape: Size
    plates: tuple[tuple[str, int, int], ...]

    @contextmanager
    def within_plates(self) -> Iterator[None]:
        """A context inside the plates that are around the site in the model."""
        with ExitStack() as stack:
            for plate, size, dim in self.plates:
                stack.enter_context(pyro.plate(plate, size, dim=dim))
            yield


def latent_sites(model: Any, example: tuple[Any, ...]) -> tuple[dict[str, LatentSite], dict[str, Tensor]]:
    """{name: site} and {name: value} of a model's latent sites, the values drawn from its prior.

    Args:
        model: a `BNN` or any Pyro model.
        example: arguments of one call; a `BNN` needs none.
    """
    with alone(), torch.no_grad(), poutine.block(), poutine.trace() as traced:
        if example:
            model(*example)
        elif isinstance(model, BNN):
            model.sample_blocks()
        else:
            raise TypeError("MeanField: give the arguments of one call of the model, MeanField(model, x, y)")
    nodes = latent_nodes(traced.trace.nodes)
    if isinstance(model, BNN) and prefix_of(model.name) + "y" in nodes:
        raise ValueError("MeanField: the example has no targets, so y would be latent; give MeanField(model, x, y)")
    if not nodes:
        raise ValueError("MeanField: the model has no latent site; was it called without the prior's sites?")
    return {name: _site(name, node) for name, node in nodes.items()}, {n: node["value"] for n, node in nodes.items()}


def _site(name: str, node: dict[str, Any]) -> LatentSite:
    fn = base_of(node["fn"])
    if fn.has_enumerate_support or fn.support.is_discrete:
        raise ValueError(f"MeanField: site {name!r} is discrete; sum it out of the model (pyro.infer.config_enumerate)")
    frames = [frame for frame in node["cond_indep_stack"] if frame.vectorized]
    for frame in frames:
        if frame.full_size not in (None, frame.size):
            raise ValueError(
                f"MeanField: site {name!r} lies in the plate {frame.name!r}, which is subsampled: {frame.size} of "
                f"{frame.full_size}; make the guide with the whole plate"
            )
    plates = tuple((frame.name, frame.size, frame.dim) for frame in frames)
    return LatentSite(fn.support, node["fn"].event_dim, node["value"].shape, plates)
