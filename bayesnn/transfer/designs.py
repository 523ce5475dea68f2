"""The published simulation: a linear source population, and a target population some way from it."""

import torch
from torch import Tensor, nn

from bayesnn.transfer.data import TransferData
from bayesnn.transfer.ridge import free_constant, logistic_at, with_constant

FEATURES, SOURCE, TEST = 49, 1000, 250
SD = 0.5
"""Of the noise of y, in source and target."""
STRENGTH = 1.0
"""Ridge of the logistic source: its training data are separable, so that no maximum likelihood estimate exists."""


def linear_design(
    seed: int, *, n_train: int, noise: float, binary: bool = False, n_test: int = TEST, n_source: int = SOURCE
) -> TransferData:
    """theta_T = theta_S + N(0, noise^2 I); x ~ N(0, I_49); y = x' theta + N(0, .5^2), or Bernoulli(expit(x' theta)).

    The published design with its linear source: least squares on the source's data, or a logistic regression with a
    ridge. theta_S is one vector for all seeds, its 50 entries (the constant's last) of random sign and uniform between
    1 and 5 in size; theta_T and all data are those of the seed.

    Args:
        seed: whole number.
        n_train: training examples of the target; 20 to 250 in the paper.
        noise: how far the target is from the source; 0 to 2 in the paper.
        binary: a binary response.
        n_test: test examples.
        n_source: training examples of the source.

    Returns:
        Data whose source is an `nn.Linear` in double precision.

    Reference: Hickey, Williams, Hector (2022), Transfer learning with uncertainty quantification: random effect
    calibration of source to target (RECaST).

    >>> linear_design(0, n_train=20, noise=1.0).x_train.shape
    torch.Size([20, 49])
    """
    generator = torch.Generator().manual_seed(seed)
    theta_source = _theta_source()
    theta_target = theta_source + noise * _normal(FEATURES + 1, generator=generator)
    x, y = _population(theta_source, n_source, binary=binary, generator=generator)
    x_train, y_train = _population(theta_target, n_train, binary=binary, generator=generator)
    x_test, y_test = _population(theta_target, n_test, binary=binary, generator=generator)
    return TransferData(_linear_source(x, y, binary=binary), x_train, y_train, x_test, y_test, binary, None, x, y)


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


def _linear_source(x: Tensor, y: Tensor, *, binary: bool) -> nn.Module:
    h = with_constant(x)
    if binary:
        weights = logistic_at(h, y, free_constant(h), torch.zeros_like(y), STRENGTH)
    else:
        weights = torch.linalg.lstsq(h, y.unsqueeze(1)).solution.squeeze(1)
    source = nn.Linear(FEATURES, 1, dtype=torch.double).requires_grad_(requires_grad=False).eval()
    source.weight.copy_(weights[:-1].unsqueeze(0))
    source.bias.copy_(weights[-1:])
    return source


def _normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=generator)
