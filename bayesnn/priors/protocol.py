"""What a prior is."""

from typing import Protocol

from pyro.distributions import TorchDistribution
from torch import Tensor


class Prior(Protocol):
    """A prior over a network's random blocks: any function of this signature, a user's own too.

    `name` is the parameter's name in the network; `value` is what the network holds there now,
    detached: the whole tensor, or the vector of its random entries where only some are random. The
    distribution's shape (batch and event together) must broadcast to the value's; entries are
    independent unless its event says otherwise.

    A prior may sample Pyro sites of its own (scales), in plates of its own too, as if there were
    one draw: where Pyro vectorises particles or draws it is called for each of them. It may be an
    `nn.Module` with learned parameters. It must pickle, since NUTS chains are processes: a
    function at module level or a class, no lambda.

    >>> from pyro import distributions as dist
    >>> def vague(name: str, value: Tensor) -> TorchDistribution:
    ...     return dist.Normal(0.0, 10.0 if name.endswith("bias") else 1.0)
    """

    def __call__(self, name: str, value: Tensor) -> TorchDistribution:
        """p(block)."""
        ...
