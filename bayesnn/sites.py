"""The sites of a Pyro trace: which are random, their bases, their densities, their values."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from pyro.distributions import Delta, MaskedDistribution, Unit
from pyro.poutine.util import site_is_subsample
from torch import Size, Tensor
from torch import distributions as torch_dist

Node: TypeAlias = dict[str, Any]
"""A site as a trace holds it: "type", "fn", "value", "is_observed", "scale", "mask" and more."""


def sample_nodes(nodes: Mapping[str, Any]) -> dict[str, Node]:
    """{name: node} of the sample sites in `trace.nodes`, without the indices of plates.

    >>> import pyro
    >>> from pyro import distributions as dist, poutine
    >>> def model():
    ...     with pyro.plate("data", 2):
    ...         return pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.zeros(2))
    >>> list(sample_nodes(poutine.trace(model).get_trace().nodes))
    ['y']
    """
    return {name: node for name, node in nodes.items() if node["type"] == "sample" and not site_is_subsample(node)}


def latent_nodes(nodes: Mapping[str, Any]) -> dict[str, Node]:
    """{name: node} of the sample sites that nothing observes, without the indices of plates.

    Deterministic sites and factors count as observed, as Pyro has it.

    >>> import pyro
    >>> from pyro import distributions as dist, poutine
    >>> def model():
    ...     w = pyro.sample("w", dist.Normal(0.0, 1.0))
    ...     pyro.deterministic("square", w**2)
    ...     return pyro.sample("y", dist.Normal(w, 1.0), obs=torch.zeros(()))
    >>> list(latent_nodes(poutine.trace(model).get_trace().nodes))
    ['w']
    """
    return {name: node for name, node in nodes.items() if is_latent(node)}


def is_latent(node: Any) -> bool:
    """Whether nothing observes the sample site and it is not the indices of a plate."""
    return node["type"] == "sample" and not node["is_observed"] and not site_is_subsample(node)


def is_deterministic(node: Node) -> bool:
    """Whether it is a `pyro.deterministic` site, or one that `poutine.reparam` made of others.

    The latter is observed at its own value, under a `Delta` whose density a mask takes away.
    """
    masked_out = isinstance(node["fn"], MaskedDistribution) and node["fn"]._mask is False
    reparametrised = node["is_observed"] and masked_out and isinstance(base_of(node["fn"].base_dist), Delta)
    return bool(node["infer"].get("_deterministic")) or reparametrised


def is_factor(node: Node) -> bool:
    """Whether it is a `pyro.factor`."""
    return isinstance(node["fn"], Unit)


def is_auxiliary(node: Node) -> bool:
    """Whether a site serves to draw or to weigh others, and is no quantity of its own."""
    return bool(node["infer"].get("is_auxiliary"))


def is_data(node: Node) -> bool:
    """Whether a site is observed, and neither deterministic nor a factor nor auxiliary.

    Auxiliary sites are, for example, a model's own vectors.
    """
    outside = is_deterministic(node) or is_factor(node) or is_auxiliary(node)
    return node["is_observed"] and not outside


def base_of(distribution: Any, *wrappers: type) -> Any:
    """The distribution without its independent axes, of Pyro's kind or torch's.

    Args:
        distribution: any.
        wrappers: what else is taken off. A mask changes the density and an expansion the shape, so
            `MaskedDistribution` and `ExpandedDistribution` come off only where neither matters.

    >>> from pyro import distributions as dist
    >>> base_of(dist.Normal(torch.zeros(2, 3), 1.0).to_event(1).to_event(1))
    Normal(loc: torch.Size([2, 3]), scale: torch.Size([2, 3]))
    """
    kinds: Any = (torch_dist.Independent, *wrappers)
    while isinstance(distribution, kinds):
        distribution = distribution.base_dist
    return distribution


def log_density(node: Node) -> Tensor:
    """Log density of a site's value in nats, without scale and mask, [*batch]."""
    density: Tensor = node["fn"].log_prob(node["value"], *node["args"], **node["kwargs"])
    return density


def masked(density: Tensor, node: Node) -> Tensor:
    """A site's log density, or another quantity [*batch], with 0 where the site is masked."""
    mask = node["mask"]
    if mask is None:
        return density
    return torch.where(torch.as_tensor(mask, device=density.device), density, density.new_zeros(()))


def seen(node: Node, density: Tensor) -> Tensor:
    """Which entries of a site's density [*batch] no mask hides, neither a handler's nor the
    distribution's own.
    """
    result = torch.ones_like(density, dtype=torch.bool)
    own = node["fn"]._mask if isinstance(node["fn"], MaskedDistribution) else None
    for mask in (node["mask"], own):
        if mask is not None:
            result = result & torch.as_tensor(mask, device=density.device)
    return result


def weighted_sum(density: Tensor, node: Node) -> Tensor:
    """The term of a site in its trace's log density in nats: masked, scaled and summed.

    >>> node = {"mask": torch.tensor([True, False]), "scale": 10.0}
    >>> weighted_sum(torch.tensor([1.0, 2.0]), node)
    tensor(10.)
    """
    density, scale = masked(density, node), node["scale"]
    # A scale for every element comes before the sum; one number after it, where it is cheaper.
    return (density * scale).sum() if isinstance(scale, Tensor) else density.sum() * scale


def without_plates(value: Tensor, shape: Size, leading: int = 0) -> Tensor | None:
    """A drawn value in the shape of its site, without the axes of size 1 that `Predictive` leaves
    for plates.

    None where it does not fit: the caller knows what to say of it.

    Args:
        value: [*leading, 1, ..., 1, *shape].
        shape: of the site.
        leading: how many axes on the left stay, such as 1 for an axis of draws.

    >>> without_plates(torch.zeros(5, 1, 3), Size([3]), leading=1).shape
    torch.Size([5, 3])
    """
    extra = value.dim() - leading - len(shape)
    between = value.shape[leading : leading + extra]
    if extra < 0 or between.numel() != 1 or value.shape[leading + extra :] != shape:
        return None
    return value.reshape(value.shape[:leading] + shape) if extra else value


def to_vector(values: Mapping[str, Tensor], order: Iterable[str]) -> Tensor:
    """The values of these sites, one after another, in one new vector [number].

    >>> to_vector({"bias": torch.zeros(1), "weight": torch.ones(1, 2)}, ["weight", "bias"])
    tensor([1., 1., 0.])
    """
    return torch.cat([values[name].reshape(-1) for name in order])


def from_vector(vector: Tensor, shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    """{name: its entries [*leading, *shape]} of a joint value [*leading, number]; views.

    The names are in the order of `shapes`, and have as many entries together as the value.

    >>> from_vector(torch.arange(3.0), {"weight": Size([1, 2]), "bias": Size([1])})
    {'weight': tensor([[0., 1.]]), 'bias': tensor([2.])}
    """
    parts = vector.split([shape.numel() for shape in shapes.values()], -1)
    return {
        name: part.reshape(part.shape[:-1] + shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
