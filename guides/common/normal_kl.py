"""KL divergence of normal distributions, at the cost of its arithmetic."""

import math

import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.sites import base_of


def normal_kl(q: dist.TorchDistribution, p: dist.TorchDistribution) -> Tensor | None:
    """KL(q || p) = 1/2 sum_j [ (s_j^2 + (m_j - m0_j)^2) / s0_j^2 - 1 - log(s_j^2 / s0_j^2) ] in
    nats, over all axes.

    None where one of the two is not a normal distribution with independent entries. A prior with
    one scale for a whole block costs two dot products and one sum of logarithms, not a P-sized
    tensor for each term.

    >>> normal_kl(dist.Normal(torch.ones(2), 1.0), dist.Normal(torch.zeros(2), 1.0))
    tensor(1.)
    """
    q, p = base_of(q), base_of(p)
    if type(q) is not dist.Normal or type(p) is not dist.Normal:
        return None
    loc, scale = q.loc, q.scale
    prior_loc, prior_scale = _shared(p.loc), _shared(p.scale)
    difference = loc if is_zero(prior_loc) else loc - prior_loc
    if prior_scale.numel() == 1:
        prior_scale = prior_scale.reshape(())
        squares = (_square_sum(scale) + _square_sum(difference)) * (prior_scale**-2 / 2)
        constant = loc.numel() * (prior_scale.log() - 0.5)
    else:
        squares = (_square_sum(scale / prior_scale) + _square_sum(difference / prior_scale)) / 2
        constant = prior_scale.log().expand_as(loc).sum() - loc.numel() / 2
    return squares - scale.log().sum() + constant


def _square_sum(value: Tensor) -> Tensor:
    flat = value.reshape(-1)
    return torch.dot(flat, flat)


def _shared(value: Tensor) -> Tensor:
    """The one number behind an expanded tensor, or the tensor."""
    if value.numel() > 1 and math.prod(s + 1 for s in value.stride()) == 1:
        return value[(slice(0, 1),) * value.dim()]
    return value


def is_zero(value: Tensor) -> bool:
    """Whether it is the constant 0, as far as that is known without waiting for a GPU."""
    return value.numel() == 1 and not value.requires_grad and value.device.type == "cpu" and value.item() == 0
