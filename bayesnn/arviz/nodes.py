"""The sites of one call with all data, and the axes that ArviZ is told of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Size, Tensor

from bayesnn.functional import alone
from bayesnn.sites import Node, is_data, sample_nodes, weighted_sum


@dataclass(frozen=True)
class Site:
    """A site's shape, and the names of those of its axes that are plates ("" for others)."""

    shape: Size
    dims: tuple[str, ...]


def trace_of(function: Callable[..., Any], args: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Node]:
    """The sample sites of one call, without the indices of plates that hold all of their data.

    Raises:
        ValueError: a subsampled plate.
    """
    with alone(), poutine.block(), poutine.trace() as traced:
        function(*args, **keywords)
    nodes: Mapping[str, Any] = traced.trace.nodes
    for name, node in nodes.items():
        if site_is_subsample(node) and len(node["value"]) < node["fn"].size:
            raise ValueError(
                f"to_arviz: the plate {name!r} is subsampled, so that every draw would meet other data; call the model "
                "with all data and without subsample_size"
            )
    return sample_nodes(nodes)


def site_of(node: Node) -> Site:
    """Shape and axes of a site's value."""
    value = event(node, node["value"]) if is_data(node) else node["value"]
    batch = node["value"].dim() - node["fn"].event_dim
    names = [""] * value.dim()
    for frame in node["cond_indep_stack"]:
        if frame.vectorized and value.shape[batch + frame.dim] == frame.size:
            names[batch + frame.dim] = frame.name
    return Site(value.shape, tuple(names))


def event(node: Node, value: Tensor) -> Tensor:
    """A value whose event is one number is that number, so that its axes are
    those of its log likelihood.
    """
    return value.squeeze(-1) if node["fn"].event_shape == (1,) else value


def total(node: Node, density: Tensor) -> float:
    """What a site adds to its trace's log density, in double precision."""
    return float(weighted_sum(density.double(), node))
