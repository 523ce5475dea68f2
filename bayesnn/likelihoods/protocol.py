"""What a likelihood is."""

from typing import Protocol

from pyro.distributions import TorchDistribution
from torch import Tensor


class Likelihood(Protocol):
    """The distribution of y given a network's outputs: any function of this signature, a user's own too.

    Outputs [*draw, batch, out] become a distribution of batch shape [*draw, batch]; what is left (several outputs, a
    map of pixels) is its event. So y has shape [batch] for `categorical` and [batch, out] for the others, `out` = 1
    included.

    A likelihood may be an `nn.Module` with learned parameters and may sample Pyro sites of its own (a latent noise
    scale). It must pickle: a function at module level or a class, no lambda. Where it has a method

        fisher(outputs [batch, out]) -> [batch, out, out]

    the Fisher information of y in the outputs, E[d log p/df d log p/df^T], Laplace and `largest_variance` work with it.

    >>> from pyro import distributions as dist
    >>> def exponential(outputs: Tensor) -> TorchDistribution:
    ...     return dist.Exponential(outputs.exp()).to_event(1)
    """

    def __call__(self, outputs: Tensor) -> TorchDistribution:
        """p(y | outputs)."""
        ...
