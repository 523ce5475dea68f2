"""The log likelihood at the means of a guide, and the distributions that depend on the weights."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor

from bayesnn.guides.variational_laplace.conditional import ConditionalSite
from bayesnn.guides.variational_laplace.distributions import tensors_of
from bayesnn.guides.variational_laplace.means import Block, depends_on
from bayesnn.sites import base_of, latent_nodes, log_density, sample_nodes, weighted_sum

NOT_TWICE = ("NotImplemented", "DelayedError", "::Error")
"""Ends of the names of autograd's nodes that have no derivative."""


def at_values(model: Any, guided: Any, blocks: Sequence[Block], args: Any, kwargs: Any) -> dict[str, Any]:
    """{site: node} of the model's sites, at the values of the guide's trace.

    Raises:
        ValueError: a latent site that the guide lacks, or one of the guide's that the model lacks.
    """
    sites = sample_nodes(poutine.trace(poutine.replay(model, trace=guided)).get_trace(*args, **kwargs).nodes)
    held = {name for block in blocks for name in block.pieces}
    for name, site in latent_nodes(sites).items():
        if name not in held:
            fn = base_of(site["fn"])
            if fn.has_enumerate_support or fn.support.is_discrete:
                remedy = "and is discrete: sum it out of the model, or use TraceEnum_ELBO"
            else:
                remedy = "; make the guide with an example of the data, or call the loss with y"
            raise ValueError(
                f"VariationalLaplaceELBO: the guide has no site {name!r}, which is latent in the model {remedy}"
            )
    if extra := sorted(held - sites.keys()):
        raise ValueError(f"VariationalLaplaceELBO: the guide's site {extra[0]!r} is not in the model; use Trace_ELBO")
    return sites


def log_likelihood(sites: dict[str, Any]) -> Tensor | float:
    """sum of scale * log p(y | m) over the observed sites, in nats."""
    total: Tensor | float = 0.0
    for site in sites.values():
        if site["is_observed"]:
            total = total + weighted_sum(log_density(site), site)
    return total


def conditionals(sites: dict[str, Any], blocks: Sequence[Block]) -> list[ConditionalSite]:
    """The observed sites, and the latent ones whose prior depends on other latent sites."""
    dependent = []
    for name, site in sites.items():
        fn, value = site["fn"], site["value"]
        if not site["is_observed"] and not depends_on(tensors_of(fn), blocks):
            continue
        if value.shape != fn.batch_shape + fn.event_shape:  # one distribution for several values
            fn = fn.expand(value.shape[: value.dim() - fn.event_dim])
        weight = torch.as_tensor(site["scale"], dtype=blocks[0].mean.dtype, device=blocks[0].mean.device)
        if site["mask"] is not None:
            weight = weight * torch.as_tensor(site["mask"], device=weight.device)
        while isinstance(fn, dist.MaskedDistribution):
            fn, weight = fn.base_dist, weight * torch.as_tensor(fn._mask, device=weight.device)
        weight = weight.sqrt()
        dependent.append(
            ConditionalSite(name, fn, value, weight.expand(fn.batch_shape) if weight.dim() else weight, blocks)
        )
    return dependent


def check_second_derivatives(gradients: Sequence[Tensor], means: Sequence[Tensor]) -> None:
    """Refuse derivatives that cannot be differentiated again; name the operation."""
    waiting = [g.grad_fn for g in gradients if g.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name().endswith(NOT_TWICE):
            _explain([g for g in gradients if g.requires_grad], means)
        for other, _ in node.next_functions:
            if other is not None and other not in seen:
                seen.add(other)
                waiting.append(other)


def _explain(gradients: list[Tensor], means: Sequence[Tensor]) -> None:
    ones, reason = [torch.ones_like(g) for g in gradients], "a function is marked with @once_differentiable"
    try:
        torch.autograd.grad(gradients, list(means), ones, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        reason = str(error)
    raise RuntimeError(
        f"VariationalLaplaceELBO: an operation of the network has no second derivative ({reason}); use "
        "curvature_grad=False, or another kernel: for attention, `with torch.nn.attention.sdpa_kernel("
        "torch.nn.attention.SDPBackend.MATH):` around the training"
    )
