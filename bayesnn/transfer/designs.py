"""The published simulation: a linear source population, and a target population
some way from it.
"""

import functools

import torch
from torch import Tensor, nn

from bayesnn.transfer.data import TransferData
from bayesnn.transfer.ridge import with_constant
from bayesnn.transfer.sources import linear_source, network_source

FEATURES, SOURCE, TEST = 49, 1000, 250
SD = 0.5
"""Of the noise of y, in source and target."""


def linear_design(
    seed: int,
    *,
    n_train: int,
    noise: float,
    binary: bool = False,
    network: bool = False,
    n_test: int = TEST,
    n_source: int = SOURCE,
) -> TransferData:
    """theta_T = theta_S + N(0, noise^2 I); x ~ N(0, I_49); y = x' theta + N(0, .5^2), or
    Bernoulli(expit(x' theta)).

    The published design. theta_S is one vector for all seeds, its 50 entries (the constant's last)
    of random sign and uniform between 1 and 5 in size; theta_T and all data are those of the seed.
    The source is least squares, or a logistic regression with a ridge (`linear_source`), or the
    published network (`network_source`).

    Args:
        seed: whole number.
        n_train: training examples of the target; 20 to 250 in the paper.
        noise: how far the target is from the source; 0 to 2 in the paper.
        binary: a binary response.
        network: the source is a network with one hidden layer, which takes some seconds; it is
            kept for other designs of the same seed.
        n_test: test examples.
        n_source: training examples of the source.

    Returns:
        Data whose source is an `nn.Linear` or an `nn.Sequential` in double precision.

    Reference: Hickey, Williams, Hector (2022), Transfer learning with uncertainty quantification:
    random effect calibration of source to target (RECaST).

    >>> linear_design(0, n_train=20, noise=1.0).x_train.shape
    torch.Size([20, 49])
    """
    generator = torch.Generator().manual_seed(seed)
    theta_target = _theta_source() + noise * _normal(FEATURES + 1, generator=generator)
    x, y = _population(_theta_source(), n_source, binary=binary, generator=generator)
    x_train, y_train = _population(theta_target, n_train, binary=binary, generator=generator)
    x_test, y_test = _population(theta_target, n_test, binary=binary, generator=generator)
    source = _network(seed, n_source, binary) if network else linear_source(x, y, binary=binary)
    return TransferData(source, x_train, y_train, x_test, y_test, binary, None, x, y)


@functools.lru_cache(maxsize=2)
def _network(seed: int, n_source: int, binary: bool) -> nn.Module:
    """The network of a seed: its data depend on nothing else."""
    generator = torch.Generator().manual_seed(seed)
    _normal(FEATURES + 1, generator=generator)  # the target's distance, drawn before
    x, y = _population(_theta_source(), n_source, binary=binary, generator=generator)
    return network_source(x, y, seed, binary=binary)


def _theta_source() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = 1 + 4 * torch.rand(FEATURES + 1, dtype=torch.double, generator=generator)
    return size * (2.0 * torch.randint(0, 2, (FEATURES + 1,), generator=generator) - 1)


def _population(theta: Tensor, n: int, *, binary: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = _normal(n, FEATURES, generator=generator)
    signal = with_constant(x) @ theta
    if binary:
        return x, (torch.rand(n, dtype=torch.double, generator=generator) < signal.sigmoid()).double()
    return x, signal + SD * _normal(n, generator=generator)


def _normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=generator)
