"""The normal prior that a Laplace approximation adds the curvature to."""

import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor

from bayesnn.functional import alone
from bayesnn.models import BNN
from bayesnn.priors import Prior, rescaled
from bayesnn.sites import base_of, sample_nodes


@torch.no_grad()
def normal_prior(model: BNN) -> tuple[Tensor, Tensor]:
    """Means and precisions of the prior, [param] each, flat over the model's blocks.

    Raises:
        ValueError: a prior that is not normal with independent entries, or has latent scales.
    """
    # At given values: to draw them would move the global random numbers, and takes time for a
    # large network.
    with alone(), poutine.block(), poutine.trace() as traced, poutine.condition(data=model.values()):
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


def restored_prior(model: BNN, loc: Tensor, precision: Tensor) -> Prior:
    """The model's prior, rescaled where a state was fitted under other precisions, such as those
    of the evidence.

    Args:
        model: whose prior it is.
        loc: means of the state's prior, [param].
        precision: its precisions, [param].

    Raises:
        ValueError: the prior that the state was fitted under has other means.
    """
    own_loc, own = normal_prior(model)
    loc, ratio = loc.to(own_loc), (own.double() / precision.to(own.device).double()).sqrt()
    if not torch.allclose(own_loc, loc):
        raise ValueError(
            "Laplace: this state was fitted under a prior with other means; make the guide from the model that has it"
        )
    if bool(((ratio - 1).abs() < 1e-6).all()):
        return model.prior
    names = model.subset.names
    parts = dict(zip(names, ratio.split([model.subset.count(name) for name in names]), strict=True))
    if _is_constant(ratio):
        return rescaled(model.prior, float(ratio.mean()))
    each = {
        name: float(part.mean()) if _is_constant(part) else part.reshape(model.subset.event_shape(name))
        for name, part in parts.items()
    }
    return rescaled(model.prior, each)


def _is_constant(values: Tensor) -> bool:
    return bool(values.max() <= values.min() * (1 + 1e-6))
