"""All random weights as one vector, in the order of a model's blocks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesnn.models import BNN


def flat_mode(model: BNN, mode: Mapping[str, Tensor]) -> Tensor:
    """The mode {site: value} in one vector, [param].

    Raises:
        ValueError: a site without a value, or with one of another shape.
    """
    for site, shape in model.sites.items():
        if site not in mode:
            raise ValueError(f"Laplace: the mode has no value for {site!r}")
        if mode[site].shape != shape:
            raise ValueError(
                f"Laplace: the mode of {site!r} has shape {tuple(mode[site].shape)}, the block has {tuple(shape)}"
            )
    return torch.cat([mode[site].detach().reshape(-1) for site in model.sites])


def by_site(model: BNN, flat: Tensor) -> dict[str, Tensor]:
    """{site: value} of a joint value [*lead, param]."""
    sites = model.sites
    parts = flat.split([shape.numel() for shape in sites.values()], dim=-1)
    return {
        site: part.reshape(part.shape[:-1] + shape) for (site, shape), part in zip(sites.items(), parts, strict=True)
    }
