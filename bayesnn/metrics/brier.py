"""Murphy's split of the Brier score into reliability, resolution and uncertainty."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from bayesnn.metrics._binning import Binning, BinSums
from bayesnn.metrics._checks import Array, check_count, check_level, probabilities_and_labels
from bayesnn.metrics._resample import bootstrap, percentile_estimate, reflected_estimate
from bayesnn.metrics.classification import brier
from bayesnn.metrics.estimate import Estimate


@dataclass(frozen=True)
class BrierDecomposition:
    """score = reliability - resolution + uncertainty + residual, exactly; no units.

    `reliability` (smaller is better) is the squared calibration error, `resolution` (larger is
    better) how far the forecasts sort the examples, `uncertainty` the score of always announcing
    the base rates. `residual` is what binning lost: the variance of forecasts within bins minus
    twice their covariance with the outcomes; small with many bins.
    """

    score: Estimate
    reliability: Estimate
    resolution: Estimate
    uncertainty: Estimate
    residual: Estimate

    def __str__(self) -> str:
        return "\n".join(f"{part.name:<12} {getattr(self, part.name)}" for part in fields(self))


def brier_decomposition(
    probs: Array,
    labels: Array,
    *,
    bins: int = 15,
    resamples: int = 1000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> BrierDecomposition:
    """REL = sum_k sum_b (n_kb/n) (p̄_kb - ō_kb)^2, RES = sum_k sum_b (n_kb/n) (ō_kb - ō_k)^2,
    UNC = sum_k ō_k (1 - ō_k).

    Each class has its own equal-width bins of p_k; p̄_kb is the mean forecast, ō_kb the share of
    class k in the bin.

    Args:
        probs: Mean predictive probabilities [batch, class].
        labels: Class numbers [batch].
        bins: Bins (left, right] of equal width on [0, 1] for each class. Noise biases REL and RES
            upwards, both by about sum_k sum_b ō_kb (1 - ō_kb) / n: more bins, more bias.
        resamples: Bootstrap resamples; 0 skips the errors of the parts.
        level: Probability of the intervals.
        generator: Source of the resamples; by default one of our own with a fixed seed.

    Returns:
        Five estimates without units. Intervals: of the score, normal; of the residual, percentile
        bootstrap; of the other three, bootstrap with the bias taken out of the end that it would
        make overconfident.

    Raises:
        TypeError: Labels that are not integers.
        ValueError: nan, shapes that do not fit, not probabilities, or a label outside the classes.

    Source: Murphy, J. Applied Meteorology 12, 1973; the residual: Stephenson et al., Weather and
    Forecasting 23, 2008; the bias: Bröcker, Climate Dynamics 39, 2012.

    Example:
        >>> import torch
        >>> parts = brier_decomposition(torch.tensor([[0.5, 0.5]] * 4), torch.tensor([0, 1, 0, 1]))
        >>> float(parts.reliability), float(parts.resolution), float(parts.uncertainty)
        (0.0, 0.0, 0.5)
    """
    check_level("brier_decomposition", level)
    check_count("brier_decomposition", "resamples", resamples, 0)
    p, y = probabilities_and_labels("brier_decomposition", probs, labels)
    hit = torch.nn.functional.one_hot(y, p.shape[1]).double()
    binning = Binning("brier_decomposition", p, hit, bins)
    squares = (p - hit).square().sum(1)

    def parts(sums: BinSums, score: Tensor) -> Tensor:
        rel, res, unc = _parts(sums, len(y))
        return torch.stack([rel, res, unc, score - (rel - res + unc)], -1)

    values = parts(binning.sums(), squares.mean()[None])[0].tolist()
    replicates = torch.empty(0, 4, dtype=p.dtype, device=p.device)
    if resamples:
        replicates = bootstrap(
            lambda counts: parts(binning.sums(counts), counts @ squares / len(y)),
            (len(y),),
            p.device,
            resamples=resamples,
            generator=generator,
        )
    rel, res, unc, rest = replicates.unbind(1)
    n = len(y)
    # Noise pushes the base rates apart and so the uncertainty down from its largest value: reflect
    # what it lacks of it.
    top = 1 - 1 / p.shape[1]
    lack = reflected_estimate(top - values[2], top - unc, n=n, level=level)
    return BrierDecomposition(
        score=brier(p, y, level=level),
        reliability=reflected_estimate(values[0], rel, n=n, level=level),
        resolution=reflected_estimate(values[1], res, n=n, level=level),
        uncertainty=replace(
            lack,
            value=values[2],
            low=top - lack.high,
            high=top - lack.low,
            method=lack.method.replace("below", "above"),
        ),
        residual=percentile_estimate(values[3], rest, n=n, level=level),
    )


def _parts(sums: BinSums, n: int) -> tuple[Tensor, Tensor, Tensor]:
    base = sums.hit.sum(-1, keepdim=True) / n
    # (n_b / n) (a - b)^2 with a = sum / n_b; an empty bin gives 0 / 1.
    count = sums.count.clamp(min=1)
    reliability = (sums.gap().square() / count).sum((-1, -2)) / n
    resolution = ((sums.hit - sums.count * base).square() / count).sum((-1, -2)) / n
    uncertainty = (base * (1 - base)).sum((-1, -2))
    return reliability, resolution, uncertainty
