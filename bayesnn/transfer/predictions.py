"""Predictions of a method of transfer learning: quantiles of a number, or a probability of one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

LEAST = 1e-12


class Quantiles(Protocol):
    """The distribution of real targets.

    Its `notes` are further numbers of the fit, which a study keeps.
    """

    @property
    def notes(self) -> Mapping[str, float]:
        """{name: number} about the fit."""
        ...

    def quantile(self, level: float) -> Tensor:
        """The quantile at `level` in (0, 1), [batch]; it may be infinite."""
        ...


def interval(prediction: Quantiles, level: float) -> tuple[Tensor, Tensor]:
    """The equal-tailed interval of probability `level`: (lower, upper), each [batch].

    >>> low, high = interval(NormalQuantiles(torch.zeros(1), torch.ones(1)), 0.5)
    >>> round(high.item(), 4)
    0.6745
    """
    return prediction.quantile((1 - level) / 2), prediction.quantile((1 + level) / 2)


@dataclass(frozen=True, eq=False)
class NormalQuantiles:
    """y_i ~ N(mean_i, sd_i^2)."""

    mean: Tensor
    sd: Tensor
    notes: Mapping[str, float] = field(default_factory=dict)

    def quantile(self, level: float) -> Tensor:
        """mean + z sd."""
        return self.mean + self.sd * torch.special.ndtri(torch.tensor(level, dtype=torch.double))


@dataclass(frozen=True, eq=False)
class DrawnQuantiles:
    """Quantiles of draws of y, [draw, batch]: no moment has to exist."""

    draws: Tensor
    notes: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", self.draws.sort(0).values)

    def quantile(self, level: float) -> Tensor:
        """The quantile, linear between draws."""
        place = level * (len(self.draws) - 1)
        below = min(int(place), len(self.draws) - 2)
        return torch.lerp(self.draws[below], self.draws[below + 1], place - below)


@dataclass(frozen=True, eq=False)
class ConformalQuantiles:
    """point_i -+ the k-th smallest of n absolute errors, k = ceil((n + 1) level), of the interval
    at `level`.

    Where k exceeds n the interval is the whole line: n errors cannot promise more. Its promise is
    about central intervals; quantiles are their ends.

    Reference: Lei, G'Sell, Rinaldo, Tibshirani, Wasserman (2018), Distribution-free predictive
    inference.
    """

    point: Tensor
    errors: Tensor
    notes: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "errors", self.errors.abs().sort().values)

    def quantile(self, level: float) -> Tensor:
        """The end at `level`; the point itself for the median."""
        central, n = abs(2 * level - 1), len(self.errors)
        if central < 1e-12:
            return self.point
        k = math.ceil((n + 1) * central - 1e-9)  # rounding may lift a whole number
        half = float(self.errors[k - 1]) if k <= n else float("inf")
        return self.point + (half if level > 0.5 else -half)


@dataclass(frozen=True, eq=False)
class Probabilities:
    """P(y_i = 1), [batch], kept 1e-12 from 0 and 1."""

    probs: Tensor
    notes: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "probs", self.probs.double().clamp(LEAST, 1 - LEAST))


Prediction = Quantiles | Probabilities
"""Of real targets, or of zeros and ones."""
