"""Cumulative distribution functions, those that torch lacks too: Student-t,
Poisson, negative binomial.
"""

from collections.abc import Callable

import torch
from pyro.distributions import GammaPoisson
from torch import Tensor
from torch import distributions as torch_dist


def component_cdf(component: torch_dist.Distribution, value: Tensor) -> Tensor:
    """P(y <= value) for each target by itself; 0 below the support and 1 above it.

    Raises:
        NotImplementedError: labels, which have no order, or a family without a known cdf.
    """
    if isinstance(component, (torch_dist.Categorical, torch_dist.Bernoulli)):
        raise NotImplementedError("labels have no order, so no cdf; use probs")
    component = each_target(component)
    if isinstance(component, torch_dist.StudentT):
        return _scipy("stdtr", component.df, (value - component.loc) / component.scale)
    if isinstance(component, torch_dist.Poisson):
        count, rate = torch.broadcast_tensors(value.floor(), component.rate)
        return torch.where(count < 0, 0.0, torch.special.gammaincc(count.clamp(min=0) + 1, rate))
    if isinstance(component, GammaPoisson):
        count = value.floor()
        success = component.rate / (1 + component.rate)
        return torch.where(count < 0, 0.0, _scipy("betainc", component.concentration, count.clamp(min=0) + 1, success))
    try:
        return inside_support(component.cdf, component, value, below=0.0, above=1.0)
    except NotImplementedError:
        raise NotImplementedError(f"no cdf is known for {type(component).__name__}") from None


def each_target(component: torch_dist.Distribution) -> torch_dist.Distribution:
    """The distribution of every target by itself: for a joint normal, its margins."""
    if isinstance(component, (torch_dist.MultivariateNormal, torch_dist.LowRankMultivariateNormal)):
        return torch_dist.Normal(component.mean, component.stddev)
    return component


def inside_support(
    function: Callable[[Tensor], Tensor],
    component: torch_dist.Distribution,
    value: Tensor,
    *,
    below: float,
    above: float,
) -> Tensor:
    """The function's values, with `below` and `above` in their place outside the family's support.

    There the family refuses values or gives nonsense.
    """
    lower = getattr(component.support, "lower_bound", None)
    upper = getattr(component.support, "upper_bound", None)
    inside, under, over = value, None, None
    if lower is not None:
        lower = torch.as_tensor(lower).to(value)
        under = value <= lower
        number = torch.finfo(value.dtype)
        # the bound may be outside
        inside = torch.maximum(inside, lower + number.eps * lower.abs() + number.tiny)
    if upper is not None:
        upper = torch.as_tensor(upper).to(value)
        over = value >= upper
        inside = torch.minimum(inside, upper)
    result = function(inside)
    result = result if under is None else torch.where(under, below, result)
    return result if over is None else torch.where(over, above, result)


def _scipy(function: str, *arguments: Tensor) -> Tensor:
    """A ufunc of scipy.special on tensors: on the CPU, without gradients."""
    try:
        from scipy import special
    except ImportError as error:
        raise ImportError("the cdf of this likelihood needs SciPy; pip install scipy") from error
    ufunc: Callable = getattr(special, function)
    like = arguments[-1]
    result = ufunc(*(argument.detach().cpu().double().numpy() for argument in arguments))
    return torch.as_tensor(result, dtype=like.dtype, device=like.device)
