"""KL divergence of a guide's normal sites from the model's priors, at the guide's means."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence

from bayesnn.guides.common.normal_kl import normal_kl
from bayesnn.guides.variational_laplace.constrained import in_unconstrained_space, places
from bayesnn.guides.variational_laplace.distributions import tensors_of
from bayesnn.guides.variational_laplace.means import Block, depends_on
from bayesnn.sites import base_of, weighted_sum


def block_kl(block: Block, modelled: Any) -> Tensor:
    """KL(q || p) of one block in nats, times the scale of its sites.

    Exact for normal priors, for log-normal ones of sites whose logarithm is normal, and where
    torch knows a closed form (Laplace); else log q - log p at one draw. Constrained sites are
    those of unconstrained space, p with its Jacobian.

    Raises:
        ValueError: guide and model scale or mask a site differently; a block of several sites
            whose priors depend on one another.
    """
    block, sites = in_unconstrained_space(block, {name: modelled[name] for name in block.pieces})
    for name, site in sites.items():
        _check_scales(name, block.site, site)
    ((name, value), *more) = block.pieces.items()
    prior = sites[name]["fn"]
    if more or value is not block.mean or (_spread(block) and isinstance(base_of(prior), dist.Normal)):
        return _joint(block, sites) * sites[name]["scale"]
    scale, mask = sites[name]["scale"], sites[name]["mask"]
    if mask is None and not (isinstance(scale, Tensor) and scale.dim()):
        exact = normal_kl(block.site["fn"], prior)
        if exact is not None:
            return exact * scale
    return weighted_sum(_each(block.site["fn"], prior), sites[name])


def _check_scales(name: str, guided: Any, modelled: Any) -> None:
    ours, theirs = guided["scale"], modelled["scale"]
    same = bool(torch.as_tensor(ours == theirs).all()) and (guided["mask"] is None) == (modelled["mask"] is None)
    if not same:
        raise ValueError(
            f"VariationalLaplaceELBO: site {name!r} is scaled by {ours} in the guide and by {theirs} in the model; "
            "open the same plates, with the same subsample, in both"
        )


def _spread(block: Block) -> bool:
    """Whether the block has covariances."""
    return not isinstance(block.normal, dist.Normal)


def _each(q: Any, p: Any) -> Tensor:
    """KL(q || p), of the batch shape."""
    normal = base_of(q)
    if isinstance(base_of(p), dist.MultivariateNormal) and isinstance(normal, dist.Normal) and q.event_dim == 1:
        q = dist.MultivariateNormal(normal.loc, scale_tril=torch.diag_embed(normal.scale), validate_args=False)
    try:
        divergence: Tensor = kl_divergence(q, p)
    except NotImplementedError:
        value = q.rsample()
        divergence = q.log_prob(value) - p.log_prob(value)
    return divergence


def _joint(block: Block, sites: dict[str, Any]) -> Tensor:
    """-H(q) - E_q[log p], where the sites are entries of one normal vector."""
    values, precisions, cross = [], [], torch.zeros((), dtype=block.mean.dtype, device=block.mean.device)
    drawn: Tensor | None = None
    for name, site in sites.items():
        prior, value = base_of(site["fn"]), block.pieces[name]
        if depends_on(tensors_of(prior), [block]):
            raise ValueError(
                f"VariationalLaplaceELBO: site {name!r} is a part of a normal distribution with covariances, so its "
                "prior must not depend on the other parts; give it a site of its own in the guide"
            )
        if site["mask"] is not None or isinstance(site["scale"], Tensor) or site["scale"] != block.site["scale"]:
            raise ValueError(f"VariationalLaplaceELBO: site {name!r} has covariances and is masked or scaled")
        values.append(value)
        if isinstance(prior, dist.Normal):
            scale = prior.scale.expand_as(value)
            standard = (value - prior.loc) / scale
            constant = 0.5 * math.log(2 * math.pi) * value.numel()
            cross = cross + 0.5 * standard.square().sum() + scale.log().sum() + constant
            precisions.append(scale**-2)
        else:
            taken = places(value, block.mean)
            if taken is None:
                raise _no_parts(block, sites)
            drawn = block.normal.rsample() if drawn is None else drawn
            log_prob = site["fn"].log_prob(drawn[taken].reshape(value.shape))
            cross = cross - log_prob.sum()
            precisions.append(torch.zeros_like(value))
    if len(values) == 1 and values[0] is block.mean:
        (precision,) = precisions
    else:
        precision = _back(values, block.mean, precisions)
        if not bool((_back(values, block.mean, [torch.ones_like(value) for value in values]) == 1).all()):
            raise _no_parts(block, sites)
    return cross + 0.5 * (precision * block.normal.variance).sum() - block.normal.entropy().sum()


def _no_parts(block: Block, sites: Mapping[str, Any]) -> ValueError:
    return ValueError(
        f"VariationalLaplaceELBO: {', '.join(map(repr, sites))} must take every entry of the normal site "
        f"{block.site['name']!r} once and as it is (slices and reshapes)"
    )


def _back(values: list[Tensor], mean: Tensor, cotangents: list[Tensor]) -> Tensor:
    (gradient,) = torch.autograd.grad(values, [mean], cotangents, create_graph=True, materialize_grads=True)
    return gradient
