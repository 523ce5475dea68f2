"""Measures of how well a score tells two sets apart: in and out of distribution, or right and
wrong predictions.

The second set is the positive class and larger scores mean more uncertain. Scores are any real
numbers, only their order counts, and nothing is ever squashed. To detect errors rather than
outliers, give the scores of right and wrong predictions: `auroc(score[~wrong], score[wrong])`.
"""

import math

import torch
from torch import Tensor

from bayesnn.metrics._checks import Array, check_level, reals, tensor
from bayesnn.metrics._resample import bootstrap_estimate
from bayesnn.metrics.estimate import Estimate, normal_quantile


def auroc(in_scores: Array, out_scores: Array, *, level: float = 0.95) -> Estimate:
    """AUROC = P(s_out > s_in) + P(s_out = s_in) / 2.

    Args:
        in_scores: Scores of the in-distribution examples (negatives), [batch]. Infinite values are
            allowed.
        out_scores: Scores of the out-of-distribution examples (positives), [another batch].
        level: Probability of the interval.

    Returns:
        Between 0 and 1, 0.5 for an uninformative score. The standard error is DeLong's; the
        interval is symmetric on the logit scale. Where DeLong's error is zero or undefined
        (perfect separation, all tied, a single example), the interval is Newcombe's, which inverts
        Hanley and McNeil's variance.

    Raises:
        ValueError: nan, or an empty set (a single class has no AUROC).

    Source: DeLong et al., Biometrics 44, 1988; Hanley and McNeil, Radiology 143, 1982; Newcombe,
    Stat. Med. 25, 2006, method 5.

    Example:
        >>> import torch
        >>> print(auroc(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.35, 0.8, 0.9])))
        0.92 ± 0.12
    """
    check_level("auroc", level)
    s_in, s_out = _scores("auroc", in_scores, out_scores)
    won_out, won_in = _placements(s_in, s_out), 1 - _placements(s_out, s_in)
    value = float(won_out.mean())
    m, n = len(s_out), len(s_in)
    se = math.sqrt(float(won_out.var()) / m + float(won_in.var()) / n) if min(m, n) > 1 else math.nan
    # Two equal variances of placements may leave rounding of 1e-17 where the truth is zero.
    if se > 1e-9 and 0 < value < 1:
        logit, half = math.log(value / (1 - value)), normal_quantile(level) * se / (value * (1 - value))
        low, high = (1 / (1 + math.exp(min(-(logit + sign * half), 700.0))) for sign in (-1, 1))
        method = "DeLong, logit interval"
    else:
        low, high = _newcombe(value, m, n, normal_quantile(level))
        method = "DeLong, Newcombe's interval"
    return Estimate(value=value, se=se, low=low, high=high, n=m + n, level=level, method=method)


def aupr(
    in_scores: Array,
    out_scores: Array,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """AUPR = sum_t (recall_t - recall_{t-1}) precision_t over falling thresholds t (average
    precision), OOD positive.

    An uninformative score has the share of positives, n_out / (n_in + n_out): compare only between
    equal shares. Steps, not trapezoids, which would be optimistic.

    Args:
        in_scores: Scores of the in-distribution examples (negatives), [batch]. Infinite values are
            allowed.
        out_scores: Scores of the out-of-distribution examples (positives), [another batch].
        resamples: Bootstrap resamples of each set for itself; 0 skips the error.
        level: Probability of the interval.
        generator: Source of the resamples; by default one of our own with a fixed seed.

    Returns:
        Between 0 and 1; standard error and percentile interval from the bootstrap.

    Raises:
        ValueError: nan, or an empty set.

    Source: Davis and Goadrich, ICML 2006.

    Example:
        >>> round(float(aupr([0.1, 0.2, 0.3, 0.4], [0.35, 0.8, 0.9])), 4)  # precisions 1, 1 and 3/4
        0.9167
    """
    s_in, s_out = _scores("aupr", in_scores, out_scores)
    curve = _Thresholds(s_in, s_out)

    def average_precision(counts: Tensor) -> Tensor:
        hits, flagged = curve(counts)
        steps = hits.diff(dim=1, prepend=torch.zeros_like(hits[:, :1]))
        # Nothing flagged comes with a step of zero.
        return (steps * hits / flagged.clamp(min=1)).sum(1) / len(s_out)

    sizes = (len(s_in), len(s_out))
    return bootstrap_estimate(
        "aupr", average_precision, sizes, s_in.device, resamples=resamples, level=level, generator=generator
    )


def fpr95(
    in_scores: Array,
    out_scores: Array,
    *,
    recall: float = 0.95,
    resamples: int = 1000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """FPR95 = share of in-distribution examples flagged when the threshold is set to flag 95 % of
    the OOD ones.

    The threshold is the largest that flags at least `recall` of the positives. Small is good.
    Libraries that take the in-distribution examples as positives print another number on the same
    scores.

    Args:
        in_scores: Scores of the in-distribution examples (negatives), [batch]. Infinite values are
            allowed.
        out_scores: Scores of the out-of-distribution examples (positives), [another batch].
        recall: Share of the positives that must be flagged.
        resamples: Bootstrap resamples of each set for itself; 0 skips the error.
        level: Probability of the interval.
        generator: Source of the resamples; by default one of our own with a fixed seed.

    Returns:
        Between 0 and 1; standard error and percentile interval from the bootstrap.

    Raises:
        ValueError: nan, an empty set, or a recall outside (0, 1).

    Source: Liang, Li and Srikant, ICLR 2018, arXiv:1706.02690; positives as in OpenOOD,
    arXiv:2306.09301.

    Example:
        >>> float(fpr95([0.1, 0.2, 0.3, 0.4], [0.35, 0.8, 0.9]))  # the threshold 0.35 flags one of four
        0.25
    """
    check_level("fpr95", recall, "recall")
    s_in, s_out = _scores("fpr95", in_scores, out_scores)
    curve = _Thresholds(s_in, s_out)

    def false_positives(counts: Tensor) -> Tensor:
        hits, flagged = curve(counts)
        enough = (hits >= recall * len(s_out) - 1e-9).to(torch.int8)
        first = enough.argmax(1, keepdim=True)  # argmax gives the first of equals
        return (flagged - hits).gather(1, first).squeeze(1) / len(s_in)

    sizes = (len(s_in), len(s_out))
    return bootstrap_estimate(
        "fpr95", false_positives, sizes, s_in.device, resamples=resamples, level=level, generator=generator
    )


class _Thresholds:
    """Both sets sorted once by falling score; a threshold lies after each group of tied scores."""

    def __init__(self, s_in: Tensor, s_out: Tensor) -> None:
        values, self.order = torch.cat([s_in, s_out]).sort(descending=True)
        self.positive = (self.order >= len(s_in)).double()
        last = torch.ones_like(values, dtype=torch.bool)
        last[:-1] = values[1:] != values[:-1]
        self.ends = last.nonzero().squeeze(1)

    def __call__(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Positives at or above each threshold, and all examples there; both [row, threshold]."""
        ordered = counts[:, self.order]
        flagged = ordered.cumsum(1)[:, self.ends]
        return ordered.mul_(self.positive).cumsum(1)[:, self.ends], flagged


def _scores(where: str, in_scores: Array, out_scores: Array) -> tuple[Tensor, Tensor]:
    for name, value in (("in_scores", in_scores), ("out_scores", out_scores)):
        if tensor(value).numel() == 0:
            raise ValueError(f"{where}: {name} is empty; two sets are compared, and both need at least one example.")
    s_in = reals(where, "in_scores", in_scores, "batch", infinite=True)
    return s_in, reals(where, "out_scores", out_scores, "batch", infinite=True).to(s_in.device)


def _placements(low: Tensor, high: Tensor) -> Tensor:
    """For each of `high`, the share of `low` beneath it, ties half."""
    ordered = low.sort().values
    below, not_above = torch.searchsorted(ordered, high), torch.searchsorted(ordered, high, right=True)
    return (below + not_above).double() / (2 * len(low))


def _newcombe(value: float, m: int, n: int, z: float) -> tuple[float, float]:
    """All areas a with |value - a| <= z sd(a), where sd is Hanley and McNeil's
    with both sizes averaged.
    """
    size = (m + n) / 2 - 1

    def sd(a: float) -> float:
        return math.sqrt(a * (1 - a) * (1 + size * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n))

    def end(bound: float) -> float:
        inside, outside = value, bound
        if abs(value - bound) <= z * sd(bound):
            return bound
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(value - middle) <= z * sd(middle) else (inside, middle)
        return inside

    return end(0.0), end(1.0)
