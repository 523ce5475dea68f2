"""KL divergence of weights with shared noise from their prior."""

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.functional import Moments, Multiplicative
from bayesnn.guides.noise_squares import Squares
from bayesnn.guides.normal_kl import normal_kl


def noise_kl(name: str, weight: Moments, prior: Any) -> Tensor:
    """KL(q || p) in nats, over all entries, constants included.

    With multiplicative noise and a prior N(0, 1/d), d one number,

        KL = 1/2 sum_ij [ d (1 + a_j) W_ij^2 - 1 - log(d a_j W_ij^2) ]

    needs two sums over the weights; W_ij^2 is W_ij^2 + floor^2 in the variance's terms, so that a dead weight counts
    with a finite number.

    Raises:
        ValueError: a prior that is not normal with independent entries.

    >>> from bayesnn.guides.noise_squares import squared
    >>> W, a = torch.tensor([[0.5, -1.0, 0.25], [1.5, 0.1, -0.4]]), torch.tensor([0.1, 0.2, 0.05])
    >>> weight = Multiplicative(W, a, W**2)
    >>> weight.squares = squared(W, 0.0, 1, 1)
    >>> noise_kl("weight", weight, dist.Normal(torch.zeros(()), 0.5))
    tensor(13.0330)
    """
    base = prior
    while isinstance(base, dist.Independent):
        base = base.base_dist
    squares: Squares | None = getattr(weight, "squares", None)
    if isinstance(weight, Multiplicative) and squares is not None and _is_simple(base):
        precision = base.scale.reshape(()) ** -2
        count = weight.loc.numel()
        floor = squares.square.new_tensor(getattr(weight, "floor", 0.0)) ** 2
        fits = torch.dot(weight.noise, squares.columns) + squares.columns.sum() - count * floor
        logs = squares.logs + (count // len(weight.noise)) * weight.noise.log().sum()
        return 0.5 * (precision * fits - logs - count * (1 + precision.log()))
    exact = normal_kl(dist.Normal(weight.loc, weight.variance.sqrt(), validate_args=False), prior)
    if exact is None:
        raise ValueError(
            f"MomentPropagationELBO: the prior of {name!r} is {type(base).__name__}; the KL divergence is closed for "
            "independent normal priors only, priors.normal or fan_in; use MeanField with MeanFieldELBO"
        )
    return exact


def _is_simple(base: Any) -> bool:
    """Whether a prior is N(0, s^2) with one s, as far as that is known without waiting for a GPU."""
    if type(base) is not dist.Normal or base.scale.numel() != 1 or base.loc.numel() != 1:
        return False
    return not base.loc.requires_grad and bool(base.loc.device.type == "cpu") and base.loc.item() == 0
