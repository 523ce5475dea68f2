"""KL divergences of the vectors' families, one number a member."""

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence


def divergence(q: dist.TorchDistribution, p: dist.TorchDistribution) -> Tensor:
    """KL(q || p) in nats, [*batch], of two normal or two Cauchy distributions with independent entries.

    For Cauchy distributions sum_i log[((g_i + h_i)^2 + (a_i - b_i)^2) / (4 g_i h_i)], which is symmetric: locations
    a and b, scales g and h.

    Raises:
        ValueError: other families.

    Reference: Chyzak, Nielsen (2019), A closed-form formula for the Kullback-Leibler divergence between Cauchy
    distributions.

    >>> divergence(dist.Cauchy(torch.zeros(2), 1.0).to_event(1), dist.Cauchy(torch.zeros(2), 1.0).to_event(1))
    tensor(0.)
    """
    axes = q.event_dim
    while isinstance(q, dist.Independent):
        q = q.base_dist
    while isinstance(p, (dist.Independent, dist.ExpandedDistribution)):
        p = p.base_dist
    if isinstance(q, dist.Normal) and isinstance(p, dist.Normal):
        each = kl_divergence(q, p)
    elif isinstance(q, dist.Cauchy) and isinstance(p, dist.Cauchy):
        each = torch.log(((q.scale + p.scale) ** 2 + (q.loc - p.loc) ** 2) / (4 * q.scale * p.scale))
    else:
        raise ValueError(
            f"RankOneELBO: KL({type(q).__name__} || {type(p).__name__}) has no closed form here; give the vectors a "
            "normal or Cauchy prior"
        )
    return each.sum(tuple(range(-axes, 0))) if axes else each
