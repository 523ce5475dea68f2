"""The bootstrap: every statistic here is a function of how often each example counts, so a
resample is a row of counts.

Nothing is sorted again for a resample, and a chunk of resamples is one matrix product or
cumulative sum.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bayesnn.metrics._checks import check_count, check_level
from bayesnn.metrics.estimate import Estimate, normal_quantile

CHUNK = 4_000_000  # counts held at once: 32 MB, and a few times that while they are made


def generator_or_default(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """The user's, or a fresh one with seed 0: a metric must not disturb the
    random state of a training run.
    """
    return torch.Generator(device).manual_seed(0) if generator is None else generator


def uniforms(n: int, rows: int, generator: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """Uniform numbers on [0, 1) in chunks of shape [row, n] until `rows` rows have been given."""
    for size in _chunks(n, rows):
        yield torch.rand(size, n, generator=generator, device=generator.device, dtype=torch.float64).to(device)


def bootstrap_counts(n: int, rows: int, generator: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """Counts of each of n examples in n draws with replacement, in chunks of shape [row, n]."""
    for size in _chunks(n, rows):
        index = torch.randint(n, (size, n), generator=generator, device=generator.device)
        counts = torch.zeros(size, n, dtype=torch.float64, device=generator.device)
        yield counts.scatter_add_(1, index, torch.ones_like(counts)).to(device)


def bootstrap(
    statistic: Callable[[Tensor], Tensor],
    sizes: tuple[int, ...],
    device: torch.device,
    *,
    resamples: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Values [resample] of `statistic` (counts [row, sum of sizes] -> [row]); each stratum is
    resampled for itself.
    """
    source = generator_or_default(generator, device)
    values = []
    for rows in _chunks(sum(sizes), resamples):
        strata = [torch.cat(list(bootstrap_counts(n, rows, source, device))) for n in sizes]
        values.append(statistic(torch.cat(strata, 1)))
    return torch.cat(values) if values else torch.empty(0, dtype=torch.float64)


def bootstrap_estimate(
    where: str,
    statistic: Callable[[Tensor], Tensor],
    sizes: tuple[int, ...],
    device: torch.device,
    *,
    resamples: int,
    level: float,
    generator: torch.Generator | None,
) -> Estimate:
    """The statistic where every example counts once, with its bootstrap standard error and
    percentile interval.
    """
    check_level(where, level)
    check_count(where, "resamples", resamples, 0)
    n = sum(sizes)
    value = float(statistic(torch.ones(1, n, dtype=torch.float64, device=device)))
    replicates = bootstrap(statistic, sizes, device, resamples=resamples, generator=generator)
    return percentile_estimate(value, replicates, n=n, level=level)


def percentile_estimate(value: float, replicates: Tensor, *, n: int, level: float) -> Estimate:
    """Efron's percentile interval: the central quantiles of the resampled values."""
    # a resample may lack what the statistic needs, e.g. any error at all
    kept = replicates[~replicates.isnan()]
    low, high = _quantiles(kept, level)
    method = f"percentile bootstrap, {len(replicates)} resamples"
    return Estimate(value=value, se=_spread(kept), low=low, high=high, n=n, level=level, method=method)


def reflected_estimate(value: float, replicates: Tensor, *, n: int, level: float, zero: bool = False) -> Estimate:
    """For sums of absolute or squared deviations, which noise pushes upwards: [2 v - q_high, v + z
    se], cut at zero.

    Such a statistic is biased upwards in the sample and once more by as much in the resample.
    Reflecting the upper quantile takes the bias out of the lower end; the upper end ignores it and
    so errs on the safe side. (A percentile interval counts the bias twice: in simulations its
    coverage of a small calibration error is zero.) `zero` puts the lower end at 0, for values that
    chance alone explains: there the bootstrap underestimates the bias.
    """
    low = 0.0 if zero else min(max(2 * value - _quantiles(replicates, level)[1], 0.0), value)
    se = _spread(replicates)
    method = f"bootstrap, {len(replicates)} resamples, reflected below"
    high = value + normal_quantile(level) * se
    return Estimate(value=value, se=se, low=low, high=high, n=n, level=level, method=method)


def _quantiles(values: Tensor, level: float) -> tuple[float, float]:
    if len(values) < 2:
        return math.nan, math.nan
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype, device=values.device)
    low, high = values.quantile(ends).tolist()
    return low, high


def _spread(values: Tensor) -> float:
    return float(values.std()) if len(values) > 1 else math.nan


def _chunks(n: int, rows: int) -> Iterator[int]:
    most = max(1, CHUNK // n)
    for start in range(0, rows, most):
        yield min(most, rows - start)
