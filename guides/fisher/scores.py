"""Scores of the outputs, and unit rows in their place."""

import torch
from pyro import poutine
from torch import Tensor

from bayesnn.functional import alone, memory
from bayesnn.likelihoods import Likelihood


def score(likelihood: Likelihood, outputs: Tensor, y: Tensor) -> Tensor:
    """d log p(y | f) / df, [batch, out]."""
    with alone(), torch.enable_grad(), poutine.block():
        at = outputs.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(likelihood(at).log_prob(y).sum(), at)
    return gradient.flatten(1)


def unit_rows(like: Tensor, weights: int, site: str) -> Tensor:
    """Unit vectors, [number, *like], for as many derivatives in so many weights."""
    count = like.numel()
    memory.require(
        4 * like.element_size() * count * (weights + count),
        like.device,
        f"VariationalLaplaceELBO: {count:,} exact derivatives of site {site!r} in {weights:,} weights",
        "use FisherProbes(), or smaller batches",
    )
    return torch.eye(count, dtype=like.dtype, device=like.device).reshape(count, *like.shape)


def check_draws(way: object, draws: int) -> None:
    """Refuse a number of draws below one."""
    if draws < 1:
        raise ValueError(f"{type(way).__name__}: at least one draw is needed, not {draws}")
