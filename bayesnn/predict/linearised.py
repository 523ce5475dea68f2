"""The predictive of a network linearised in its weights: the GLM predictive of Laplace approximations."""

import torch
from torch import Tensor

from bayesnn.functional import Inputs
from bayesnn.predict.draw import Posterior


@torch.no_grad()
def linearised(posterior: Posterior, x: Inputs, draws: int = 100) -> Tensor:
    """Draws of f(x; m) + J(x) (w - m) with w from the guide, [draw, batch, out]; m is the guide's mean.

    Draws are independent between examples: the marginal predictive of each. They come from the guide's
    `output_distribution(x)`, a normal distribution in closed form.

    Raises:
        TypeError: the posterior offers no `output_distribution`.
    """
    distribution = getattr(posterior, "output_distribution", None)
    if distribution is None:
        raise TypeError(
            f"linearised: {type(posterior).__name__} has no closed form of its outputs, output_distribution(x); use a "
            "guide that has (Laplace, MeanField), or predict(...)"
        )
    return distribution(x).rsample((draws,))
