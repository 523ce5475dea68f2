"""Whether the losses of a run still fell when it ended."""

from collections.abc import Sequence
from statistics import fmean, variance

SMALLEST = 5
"""Epochs in an eighth of a run, below which nothing can be said."""

_ROUNDING = 1e-5


def eighths(losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """The losses of the last eighth of the epochs and of the one before, n = epochs // 8 each."""
    n = len(losses) // 8
    return list(losses[len(losses) - n :]), list(losses[len(losses) - 2 * n : len(losses) - n])


def still_falling(losses: Sequence[float]) -> bool:
    """Whether mean(before) - mean(last) > 3 sqrt((s_before^2 + s_last^2) / n), of n epochs each.

    They are the halves of the last quarter of the epochs, n = epochs // 8, with variances s^2.
    Never of fewer than 40 epochs, nor of a fall below 1e-5 of the loss's size, which is rounding.

    Of losses that have settled and whose noise is normal and independent the left side over the
    root has Student's t distribution with 2 n - 2 degrees of freedom, and the false-alarm rate is
    0.9 % for 40 epochs, 0.4 % for 80 and 0.2 % for 600. Noise that lasts over several epochs
    raises it. A fall below the noise is missed: a run for which this is False need not have
    converged.

    >>> still_falling([1.0 / epoch for epoch in range(1, 81)]), still_falling([1.0, 1.1] * 40)
    (True, False)
    """
    last, before = eighths(losses)
    if len(last) < SMALLEST:
        return False
    fall = fmean(before) - fmean(last)
    error = ((variance(before) + variance(last)) / len(last)) ** 0.5
    return fall > 3 * error and fall > _ROUNDING * abs(fmean(last))
