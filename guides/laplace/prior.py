"""The normal prior that a Laplace approximation adds the curvature to."""

import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor

from bayesnn.models import BNN
from bayesnn.sites import base_of, sample_nodes


@torch.no_grad()
def normal_prior(model: BNN) -> tuple[Tensor, Tensor]:
    """Means and precisions of the prior, [param] each, flat over the model's blocks.

    Raises:
        ValueError: a prior that is not normal with independent entries, or has latent scales.
    """
    # At given values: to draw them would move the global random numbers, and takes time for a large network.
    with poutine.block(), poutine.trace() as traced, poutine.condition(data=model.values()):
        model.sample_blocks()
    nodes = sample_nodes(traced.trace.nodes)
    extra = [name for name in nodes if name not in model.sites]
    if extra:
        raise ValueError(f"Laplace: the prior has the latent site {extra[0]!r}; a fixed normal prior is needed")
    locs, precisions = [], []
    for name, shape in model.sites.items():
        base = base_of(nodes[name]["fn"])
        if not isinstance(base, dist.Normal):
            raise ValueError(
                f"Laplace: the prior of {name!r} is {type(base).__name__}; a normal prior is needed, whose precision "
                "the curvature is added to"
            )
        locs.append(base.loc.expand(shape).reshape(-1))
        precisions.append((base.scale**-2).expand(shape).reshape(-1))
    return torch.cat(locs), torch.cat(precisions)


def check_same_prior(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Refuse a fitted state under another prior: the covariance that it holds would not be that of this model."""
    (loc, precision), (other_loc, other) = ours, (part.to(ours[0]) for part in theirs)
    if torch.allclose(loc, other_loc) and torch.allclose(precision, other, rtol=1e-4):
        return
    remedy = "make the guide from the model that has it"
    ratio = (other / precision).double().mean().item()
    if torch.allclose(loc, other_loc) and torch.allclose(precision * ratio, other, rtol=1e-4):
        remedy = f"use Laplace(model.with_prior(priors.rescaled(model.prior, {ratio**-0.5:.9g})))"
    raise ValueError(f"Laplace: this state was fitted under another prior; {remedy}")
