"""Tests of random quantities: one false-alarm rate for all of them."""

import math
from statistics import NormalDist

import torch
from torch import Tensor

FALSE_ALARM = 1e-6
"""The probability that a check fails although the code is right; seeds are
fixed, so it is paid once.
"""


def bound(checks: int = 1) -> float:
    """|z| that a standard normal exceeds in any of so many checks with
    probability `FALSE_ALARM` (Bonferroni).
    """
    return NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * checks))


def assert_same_mean(a: Tensor, b: Tensor) -> None:
    """Two sets of independent draws [draw] have one mean: Welch's z-test."""
    a, b = a.detach().double(), b.detach().double()
    error = math.sqrt(a.var() / len(a) + b.var() / len(b))
    assert (a.mean() - b.mean()).abs() <= bound() * error, f"{a.mean():.6g} and {b.mean():.6g} +- {error:.2g}"


def assert_mean(draws: Tensor, mean: Tensor | float) -> None:
    """Independent draws [draw, ...] have this mean, in every entry: a z-test
    with the draws' own standard error.
    """
    draws = draws.detach().double()
    mean = torch.as_tensor(mean, dtype=torch.double).expand(draws.shape[1:])
    error = draws.std(0) / math.sqrt(len(draws))
    excess = (draws.mean(0) - mean).abs() - bound(mean.numel()) * error
    worst = excess.flatten().argmax() if excess.numel() else 0
    assert (excess <= 1e-12).all(), (
        f"the mean of {len(draws)} draws is {draws.mean(0).flatten()[worst]:.6g} +- {error.flatten()[worst]:.2g} where "
        f"{mean.flatten()[worst]:.6g} was expected"
    )
