"""KL divergence of weights with shared noise from their prior."""

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.guides.common.normal_kl import is_zero, normal_kl
from bayesnn.guides.multiplicative_noise.squares import Squares
from bayesnn.moments import Moments, Multiplicative
from bayesnn.sites import base_of


def noise_kl(name: str, weight: Moments, prior: Any) -> Tensor:
    """KL(q || p) in nats, over all entries, constants included.

    With multiplicative noise and a prior N(0, 1/d), d one number,

        KL = 1/2 sum_ij [ d (1 + a_j) W_ij^2 - 1 - log(d a_j W_ij^2) ]

    needs two sums over the weights; W_ij^2 is W_ij^2 + floor^2 in the variance's terms, so that a
    dead weight counts with a finite number.

    Raises:
        ValueError: a prior that is not normal with independent entries.

    >>> from bayesnn.guides.multiplicative_noise.squares import squared
    >>> W, a = torch.tensor([[0.5, -1.0, 0.25], [1.5, 0.1, -0.4]]), torch.tensor([0.1, 0.2, 0.05])
    >>> weight = Multiplicative(W, a, W**2)
    >>> weight.squares = squared(W, 0.0, 1, 1)
    >>> noise_kl("weight", weight, dist.Normal(torch.zeros(()), 0.5))
    tensor(13.0330)
    """
    base = base_of(prior)
    squares: Squares | None = weight.squares if isinstance(weight, Multiplicative) else None
    if squares is not None and type(base) is dist.Normal and base.scale.numel() == base.loc.numel() == 1:
        assert isinstance(weight, Multiplicative)
        precision, count = base.scale.reshape(()) ** -2, weight.loc.numel()
        fits = torch.dot(weight.noise, squares.columns) + squares.columns.sum() - count * squares.floor**2
        if not is_zero(base.loc):
            centre = base.loc.reshape(())
            fits = fits + centre * (count * centre - 2 * weight.loc.sum())
        logs = squares.logs + (count // len(weight.noise)) * weight.noise.log().sum()
        return 0.5 * (precision * fits - logs - count * (1 + precision.log()))
    exact = normal_kl(dist.Normal(weight.loc, weight.variance.sqrt(), validate_args=False), prior)
    if exact is None:
        raise ValueError(
            f"MomentPropagationELBO: the prior of {name!r} is {type(base).__name__}; the KL divergence is closed for "
            "independent normal priors only, priors.normal or fan_in; use MeanField with MeanFieldELBO"
        )
    return exact
