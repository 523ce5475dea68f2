"""Cumulative distribution functions that torch lacks: Student-t, Poisson, negative binomial."""

from collections.abc import Callable

import torch
from pyro import distributions as dist
from torch import Tensor


def component_cdf(component: dist.TorchDistribution, value: Tensor) -> Tensor:
    """P(y <= value), elementwise.

    Raises:
        NotImplementedError: labels, which have no order, or a family without a known cdf.
    """
    if isinstance(component, dist.StudentT):
        z = (value - component.loc) / component.scale
        return _scipy("stdtr", component.df, z)
    if isinstance(component, dist.Poisson):
        count = value.floor()
        inside = torch.special.gammaincc(count.clamp(min=0) + 1, component.rate.expand_as(count + component.rate))
        return torch.where(count < 0, torch.zeros_like(inside), inside)
    if isinstance(component, dist.GammaPoisson):
        count = value.floor()
        success = component.rate / (1 + component.rate)
        inside = _scipy("betainc", component.concentration, count.clamp(min=0) + 1, success)
        return torch.where(count < 0, torch.zeros_like(inside), inside)
    if isinstance(component, dist.Categorical):
        raise NotImplementedError("labels have no order, so no cdf; use probs")
    try:
        return component.cdf(value)
    except NotImplementedError:
        raise NotImplementedError(f"no cdf is known for {type(component).__name__}") from None


def _scipy(function: str, *arguments: Tensor) -> Tensor:
    """A ufunc of scipy.special on tensors: on the CPU, without gradients."""
    from scipy import special

    ufunc: Callable = getattr(special, function)
    like = arguments[-1]
    return torch.as_tensor(ufunc(*(a.detach().cpu().double().numpy() for a in arguments)), dtype=like.dtype, device=like.device)
