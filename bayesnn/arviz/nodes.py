"""What the sites of a Pyro trace are, and their densities."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pyro import poutine
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask
from torch import Size, Tensor

from bayesnn.functional import alone

Node: TypeAlias = dict[str, Any]


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
    nodes: dict[str, Node] = {}
    found: Any = traced.trace.nodes
    for name, node in found.items():
        if node["type"] != "sample":
            continue
        if type(node["fn"]).__name__ != "_Subsample":
            nodes[name] = node
        elif len(node["value"]) < node["fn"].size:
            raise ValueError(
                f"to_arviz: the plate {name!r} is subsampled, so that every draw would meet other data; call the model "
                "with all data and without subsample_size"
            )
    return nodes


def site_of(node: Node) -> Site:
    """Shape and axes of a site's value."""
    value = event(node, node["value"]) if is_data(node) else node["value"]
    batch = node["value"].dim() - node["fn"].event_dim
    names = [""] * value.dim()
    for frame in node["cond_indep_stack"]:
        if frame.vectorized and value.shape[batch + frame.dim] == frame.size:
            names[batch + frame.dim] = frame.name
    return Site(value.shape, tuple(names))


def is_deterministic(node: Node) -> bool:
    """A `pyro.deterministic` site."""
    return bool(node["infer"].get("_deterministic"))


def is_data(node: Node) -> bool:
    """Observed, and neither a deterministic site nor a factor nor auxiliary (a model's own vectors, not its data)."""
    outside = is_deterministic(node) or isinstance(node["fn"], Unit) or node["infer"].get("is_auxiliary")
    return node["is_observed"] and not outside


def event(node: Node, value: Tensor) -> Tensor:
    """A value whose event is one number is that number, so that its axes are those of its log likelihood."""
    return value.squeeze(-1) if node["fn"].event_shape == (1,) else value


def log_prob(node: Node) -> Tensor:
    """Log density of a site's value in nats, without scale and mask, [*batch]."""
    density: Tensor = node["fn"].log_prob(node["value"], *node["args"], **node["kwargs"])
    return density


def total(node: Node, density: Tensor) -> float:
    """What a site adds to its trace's log density: scaled, masked, and summed in double precision."""
    return float(scale_and_mask(density.double(), node["scale"], node["mask"]).sum())
