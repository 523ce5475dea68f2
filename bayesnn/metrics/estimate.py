"""A metric's value together with how far the finite test set lets it be known."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor

from bayesnn.metrics._checks import Array, check_level, reals


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric of a finite test set: value, standard error and interval.

    `value` is the metric on the examples given, `se` its standard error and `[low, high]` an
    interval of probability `level` for the metric on infinitely many such examples; `method` says
    how both were found. All are in the metric's own unit. `n` counts the examples. Where none
    exists (one example), `se`, `low` and `high` are nan.

    The error is that of the *examples*, which are taken to be independent; it knows nothing of
    another training run's seed. Two methods judged on the same examples differ by less than their
    standard errors suggest: use `mean_estimate` on the difference of their per-example scores.

    Example:
        >>> accuracy = Estimate(value=0.9312, se=0.0041, low=0.9227, high=0.9388, n=4000, method="Wilson")
        >>> print(accuracy)
        0.9312 ± 0.0041
        >>> f"{accuracy:.2f}", float(accuracy), accuracy.interval
        ('0.93 ± 0.00', 0.9312, (0.9227, 0.9388))
    """

    value: float
    se: float
    low: float
    high: float
    n: int
    method: str
    level: float = 0.95

    @property
    def interval(self) -> tuple[float, float]:
        """`(low, high)`."""
        return self.low, self.high

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        if self.se > 0 and math.isfinite(self.se):
            # Two significant digits of the error, and the value to the same place.
            places = min(max(1 - math.floor(math.log10(self.se)), 0), 10)
            return f"{self.value:.{places}f} ± {self.se:.{places}f}"
        if self.high > self.low:
            return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.value:.4g}"

    def __format__(self, spec: str) -> str:
        """The spec applies to value and error alike; without one, the error's
        size chooses the digits.
        """
        return f"{self.value:{spec}} ± {self.se:{spec}}" if spec else str(self)


def mean_estimate(values: Array, *, level: float = 0.95) -> Estimate:
    """Mean m = mean(values), se = sd(values) / sqrt(n), interval m ± z se.

    Also the tool for paired comparisons: the mean of `score_a - score_b` over the same examples.

    Args:
        values: Per-example scores [batch], in any unit.
        level: Probability of the interval.

    Returns:
        The mean in the unit of `values`. Where one of them is infinite the mean is too, and its
        error is nan.

    Raises:
        ValueError: nan, another shape, or no example.

    Example:
        >>> import torch
        >>> print(mean_estimate(torch.tensor([1.0, 2.0, 3.0, 4.0])))
        2.50 ± 0.65
    """
    check_level("mean_estimate", level)
    scores = reals("mean_estimate", "values", values, "batch", infinite=True)
    n = len(scores)
    mean = float(scores.mean())
    se = float(scores.std()) / math.sqrt(n) if n > 1 else math.nan
    half = normal_quantile(level) * se
    return Estimate(
        value=mean, se=se, low=mean - half, high=mean + half, n=n, level=level, method="normal, of the mean"
    )


def share_estimate(hits: Tensor, *, level: float = 0.95) -> Estimate:
    """Share p = mean(hits) with se = sqrt(p (1 - p) / n) and Wilson's interval, honest even at
    p = 0 and p = 1.
    """
    n = len(hits)
    share = float(hits.double().mean())
    low, high = wilson(share, n, level=level)
    return Estimate(
        value=share, se=math.sqrt(share * (1 - share) / n), low=low, high=high, n=n, level=level, method="Wilson"
    )


def wilson(share: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial probability (J. Am. Stat. Assoc.
    22, 1927, 209-212).
    """
    z2 = normal_quantile(level) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # The ends are exactly 0 and 1 where the share is; rounding would put them a hair beside the
    # value.
    return (0.0 if share == 0 else max(centre - half, 0.0)), (1.0 if share == 1 else min(centre + half, 1.0))


def normal_quantile(level: float) -> float:
    """The z such that a standard normal lies within ± z with probability `level`."""
    return NormalDist().inv_cdf(0.5 + level / 2)
