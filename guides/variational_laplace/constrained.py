"""Sites with a support, such as positive scales, seen in the unconstrained space of the guide."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Transform, biject_to

from bayesnn.guides.variational_laplace.distributions import steps, unconstrained
from bayesnn.guides.variational_laplace.means import Block
from bayesnn.sites import base_of


def in_unconstrained_space(block: Block, sites: Mapping[str, Any]) -> tuple[Block, dict[str, Any]]:
    """The block and its sites of the model with v = T(u) replaced by u, and log p(v) by log
    p(T(u)) + log |dT/du|.

    T is the transform of the guide's site, or that of its support where the guide has a Delta of
    T(u), as Pyro's autoguides do.

    Raises:
        ValueError: a Delta that is another function of the normal site.
    """
    pieces, nodes = dict(block.pieces), dict(sites)
    for name, transform in block.constrained.items():
        site, value = sites[name], block.pieces[name]
        if transform is None:
            transform = biject_to(base_of(site["fn"]).support)
            pieces[name] = _before(name, transform, value, block, site)
        else:
            pieces[name] = block.mean
        nodes[name] = {**site, "fn": _prior(site["fn"], transform)}
    return replace(block, pieces=pieces), nodes


def places(value: Tensor, mean: Tensor) -> Tensor | None:
    """The entries of the mean [*mean] that a tensor consists of, each once and in order.

    None if it is no such part.
    """
    (gradient,) = torch.autograd.grad(value.sum(), mean, retain_graph=True, materialize_grads=True)
    taken = gradient != 0
    same = int(taken.sum()) == value.numel() and torch.allclose(mean[taken], value.reshape(-1), rtol=1e-4, atol=1e-6)
    return taken if same else None


def _before(name: str, transform: Transform, value: Tensor, block: Block, site: Any) -> Tensor:
    """u, as the very entries of the block's mean."""
    mean = block.mean
    whole = block.site["fn"].batch_shape == site["fn"].batch_shape
    if whole and value.shape == transform.forward_shape(mean.shape) and torch.equal(transform(mean), value):
        return mean
    u = transform.inv(value)
    taken = places(u, mean)
    if taken is None:
        raise ValueError(
            f"VariationalLaplaceELBO: the guide's site {name!r} is a Delta of a normal site through another function "
            f"than that of its support ({site['fn'].support}); sample it as a TransformedDistribution of a Normal"
        )
    return mean[taken].reshape(u.shape)


def _prior(fn: Any, transform: Transform) -> Any:
    """p(u) = p(T(u)) |dT/du|; the distribution inside, where the prior is made
    by the same transform.
    """
    base, own = unconstrained(fn)
    if own is not None and steps(own) == steps(transform):
        return base
    return dist.TransformedDistribution(fn, [transform.inv], validate_args=False)
