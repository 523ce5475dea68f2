"""The diagonal of the Fisher information of all data at a guide's means, and
the precisions of the priors.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.functional import Inputs
from bayesnn.guides.fisher.exact import EXACT
from bayesnn.guides.fisher.protocol import Curvature
from bayesnn.guides.laplace import Diagonal, Laplace
from bayesnn.guides.variational_laplace.constrained import in_unconstrained_space
from bayesnn.guides.variational_laplace.means import at_means
from bayesnn.guides.variational_laplace.model import at_values, conditionals
from bayesnn.models import BNN
from bayesnn.sites import base_of


def of_network(
    model: BNN, means: Mapping[str, Tensor], loader: Iterable[tuple[Inputs, Tensor]]
) -> tuple[Tensor, Tensor]:
    """(F, P), [param] each in the order of the blocks, layer by layer: what a diagonal Laplace
    approximation sums.
    """
    laplace = Laplace(model, means, structure=Diagonal).fit(loader)
    fitted = laplace.fitted
    assert isinstance(fitted.curvature, Diagonal)
    return fitted.curvature.diagonal * fitted.share(model), fitted.prior_precision.double()


def of_model(model: Any, guide: Any, loader: Iterable[Any], curvature: Curvature | None) -> tuple[Tensor, Tensor]:
    """(F, P), [param] each in the order of the guide's sites, for any Pyro model: the mean over
    its batches.

    Each batch stands for all data, by its scales; F is over the scale of the site that it belongs
    to.
    """
    total, precision, batches = torch.zeros(()), torch.zeros(()), 0
    for batch in loader:
        args = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        with torch.enable_grad():
            squares, precision = _of_batch(model, guide, args, curvature or EXACT)
        total = total + squares
        batches += 1
    if not batches:
        raise ValueError("fit_variances: the loader is empty")
    return total / batches, precision


def _of_batch(model: Any, guide: Any, args: tuple[Any, ...], curvature: Curvature) -> tuple[Tensor, Tensor]:
    guided, blocks = at_means(guide, args, {})
    sites = at_values(model, guided, blocks, args, {})
    squares = [torch.zeros_like(block.mean, dtype=torch.double) for block in blocks]
    for one in curvature.passes(conditionals(sites, blocks)):
        if not one.outputs:
            continue
        gradients = torch.autograd.grad(
            one.outputs,
            [block.mean for block in blocks],
            one.cotangents,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=one.batched,
        )
        for square, g in zip(squares, gradients, strict=True):
            if g is not None:
                square += g.double().square().sum(0) if one.batched else g.double().square()
    names = [(block, name) for block in blocks for name in block.pieces]
    priors = [in_unconstrained_space(block, {name: sites[name]})[1][name] for block, name in names]
    precisions = [_precision(name, prior, block.mean) for (block, name), prior in zip(names, priors, strict=True)]
    scales = [sites[name]["scale"] for _, name in names]
    over = [(square / scale).flatten() for square, scale in zip(squares, scales, strict=True)]
    return torch.cat(over).detach(), torch.cat(precisions).detach()


def _precision(name: str, site: Any, mean: Tensor) -> Tensor:
    prior = base_of(site["fn"])
    if not isinstance(prior, dist.Normal):
        raise ValueError(f"fit_variances: the prior of {name!r} is {type(prior).__name__}, not normal")
    return (prior.scale**-2).expand_as(mean).double().flatten()
