"""Prediction intervals: made from draws, then judged by coverage, width and the interval score."""

import torch
from torch import Tensor

from bayesnn.metrics._checks import Array, check_level, check_same_batch, reals, tensor
from bayesnn.metrics.estimate import Estimate, mean_estimate, share_estimate


def central_interval(draws: Array, *, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """[q_{(1 - level)/2}, q_{(1 + level)/2}] of the draws of every example.

    Args:
        draws: Draws of the outcome y given x, [draw, *batch]; about 40 / (1 - level) or more give
            steady ends.
        level: Probability between the ends.

    Returns:
        `(lower, upper)`, each [*batch], in target units; in the precision of the draws, if they
        are no integers.

    Raises:
        ValueError: nan, no draw, or a level outside (0, 1).

    Source: Hyndman and Fan, The American Statistician 50, 1996 (type 7, linear between draws).

    Example:
        >>> import torch
        >>> central_interval(torch.arange(101.0)[:, None], level=0.9)
        (tensor([5.]), tensor([95.]))
    """
    check_level("central_interval", level)
    given = tensor(draws).dtype
    given = given if given.is_floating_point else torch.get_default_dtype()
    values = reals("central_interval", "draws", draws)
    if values.ndim < 2 or values.numel() == 0:
        raise ValueError(f"central_interval: draws of shape {list(values.shape)} must be [draw, batch], not empty.")
    # torch.quantile refuses more than 16 million numbers; sorting does not.
    ordered = values.sort(0).values
    ends = []
    for q in ((1 - level) / 2, (1 + level) / 2):
        place = q * (len(ordered) - 1)
        below = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
        above = min(below + 1, len(ordered) - 1)
        ends.append(torch.lerp(ordered[below], ordered[above], place - below).to(given))
    return ends[0], ends[1]


def coverage(lower: Array, upper: Array, targets: Array, *, level: float = 0.95) -> Estimate:
    """mean_i 1[lower_i <= y_i <= upper_i]: to be compared with the nominal probability of the
    intervals.

    Args:
        lower: Lower ends [batch].
        upper: Upper ends [batch].
        targets: [batch].
        level: Probability of the interval *about the coverage*, not the nominal one of the
            intervals judged.

    Returns:
        The share covered, its binomial standard error and Wilson's interval. (250 targets pin 95 %
        down to 92-97 %.)

    Raises:
        ValueError: nan, shapes that do not fit, or a lower end above its upper one.

    Source: Wilson, J. Am. Stat. Assoc. 22, 1927 (the interval).

    Example:
        >>> import torch
        >>> targets = torch.tensor([0.5, 2.0, 0.1, 0.9])
        >>> print(coverage(torch.zeros(4), torch.ones(4), targets))
        0.75 ± 0.22
    """
    check_level("coverage", level)
    low, high, y = _ends_and_targets("coverage", lower, upper, targets)
    return share_estimate((low <= y) & (y <= high), level=level)


def width(lower: Array, upper: Array, *, level: float = 0.95) -> Estimate:
    """mean_i (upper_i - lower_i), the price of the coverage.

    Args:
        lower: Lower ends [batch].
        upper: Upper ends [batch].
        level: Probability of the interval about the mean width.

    Returns:
        Mean width in target units, with the standard error of the mean.

    Raises:
        ValueError: nan, shapes that do not fit, or a lower end above its upper one.

    Source: Gneiting, Balabdaoui and Raftery, J. R. Stat. Soc. B 69, 2007 (sharpness subject to
    calibration).

    Example:
        >>> import torch
        >>> float(width(torch.zeros(2), torch.tensor([1.0, 2.0])))
        1.5
    """
    check_level("width", level)
    low, high = _ends("width", lower, upper)
    return mean_estimate(high - low, level=level)


def interval_score(
    lower: Array, upper: Array, targets: Array, *, nominal: float = 0.95, level: float = 0.95
) -> Estimate:
    """IS = mean_i { (u_i - l_i) + (2 / a) (l_i - y_i)_+ + (2 / a) (y_i - u_i)_+ }, a = 1 - nominal
    (Winkler).

    Proper for central intervals: it rewards narrowness and fines every miss by its distance.

    Args:
        lower: Lower ends [batch].
        upper: Upper ends [batch].
        targets: [batch].
        nominal: The probability that the intervals claim.
        level: Probability of the interval about the mean score.

    Returns:
        Mean over examples in target units, with the standard error of the mean.

    Raises:
        ValueError: nan, shapes that do not fit, or a lower end above its upper one.

    Source: Winkler, J. Am. Stat. Assoc. 67, 1972; Gneiting and Raftery, J. Am. Stat. Assoc. 102,
    2007, eq. 43.

    Example:
        >>> import torch
        >>> float(interval_score([0.0], [1.0], [1.5], nominal=0.5))  # 1 + (2 / 0.5) 0.5
        3.0
    """
    check_level("interval_score", level)
    check_level("interval_score", nominal, "nominal")
    low, high, y = _ends_and_targets("interval_score", lower, upper, targets)
    misses = (low - y).clamp(min=0) + (y - high).clamp(min=0)
    return mean_estimate(high - low + 2 / (1 - nominal) * misses, level=level)


def _ends(where: str, lower: Array, upper: Array) -> tuple[Tensor, Tensor]:
    # An end may be infinite: a one-sided interval covers, although its width is infinite.
    low = reals(where, "lower", lower, "batch", infinite=True)
    high = reals(where, "upper", upper, "batch", infinite=True).to(low.device)
    check_same_batch(where, lower=low, upper=high)
    crossed = low > high
    if bool(crossed.any()):
        i = int(crossed.nonzero()[0])
        raise ValueError(
            f"{where}: lower[{i}] = {float(low[i]):.4g} exceeds upper[{i}] = {float(high[i]):.4g} "
            f"({int(crossed.sum())} such intervals); swap the arguments, or sort crossing quantiles."
        )
    return low, high


def _ends_and_targets(where: str, lower: Array, upper: Array, targets: Array) -> tuple[Tensor, Tensor, Tensor]:
    low, high = _ends(where, lower, upper)
    y = reals(where, "targets", targets, "batch").to(low.device)
    check_same_batch(where, lower=low, targets=y)
    return low, high, y
