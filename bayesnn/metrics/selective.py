"""Does uncertainty rank the mistakes? Risk against coverage when the most uncertain examples are
rejected first.

Examples with equal scores are rejected in random order; every number here is the expectation over
that order, so that a constant score is worth nothing, whatever the order of the file.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesnn.metrics._checks import Array, check_same_batch, reals
from bayesnn.metrics._resample import bootstrap_estimate
from bayesnn.metrics.estimate import Estimate


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """`risk[i]`, the mean loss of the i + 1 least uncertain examples, and
    `coverage[i]` = (i + 1) / n; both [batch].
    """

    coverage: Tensor
    risk: Tensor


def risk_coverage(scores: Array, losses: Array) -> RiskCoverage:
    """risk(c) = mean loss of the share c of examples with the smallest scores.

    Args:
        scores: Uncertainty [batch], any real numbers; larger is more uncertain.
        losses: Per-example losses [batch], e.g. wrong predictions (`probs.argmax(-1) != labels`)
            or squared errors.

    Returns:
        The curve with one point an example; coverage has no unit, risk that of the losses.

    Raises:
        ValueError: nan, or shapes that do not fit.

    Source: El-Yaniv and Wiener, JMLR 11, 2010; Geifman and El-Yaniv, NeurIPS 2017,
    arXiv:1705.08500.

    Example:
        >>> curve = risk_coverage([0.1, 0.2, 0.9], [0.0, 0.0, 1.0])
        >>> [round(risk, 3) for risk in curve.risk.tolist()]
        [0.0, 0.0, 0.333]
    """
    s, l = _scores_and_losses("risk_coverage", scores, losses)
    order, group, sizes = _groups(s)
    means = torch.zeros_like(sizes).index_add_(0, group, l[order]) / sizes
    rank = torch.arange(1, len(s) + 1, dtype=l.dtype, device=l.device)
    return RiskCoverage(rank / len(s), means[group].cumsum(0) / rank)


def aurc(
    scores: Array,
    losses: Array,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """AURC = mean_i risk(i / n): the mean selective risk over all coverages.

    Args:
        scores: Uncertainty [batch], any real numbers; larger is more uncertain.
        losses: Per-example losses [batch], e.g. wrong predictions (`probs.argmax(-1) != labels`)
            or squared errors.
        resamples: Bootstrap resamples; 0 skips the error.
        level: Probability of the interval.
        generator: Source of the resamples; by default one of our own with a fixed seed.

    Returns:
        In the unit of the losses; a constant score gives the mean loss. It falls with better
        ranking *and* with fewer errors. Standard error and percentile interval from the bootstrap.

    Raises:
        ValueError: nan, or shapes that do not fit.

    Source: Geifman, Uziel and El-Yaniv, ICLR 2019, arXiv:1805.08206.

    Example:
        >>> round(float(aurc([0.1, 0.2, 0.9], [0.0, 0.0, 1.0])), 3)  # (0 + 0 + 1/3) / 3
        0.111
    """
    s, l = _scores_and_losses("aurc", scores, losses)
    # Resampling is blind to order, so the examples are sorted once and the counts refer to ranks.
    order = s.argsort()
    return bootstrap_estimate(
        "aurc", _Area(s[order], l[order]), (len(l),), l.device, resamples=resamples, level=level, generator=generator
    )


def raulc(
    scores: Array,
    errors: Array,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Relative area under the lift curve: rAULC = AULC(scores) / AULC(errors), AULC(u) = mean_i
    F_i(u) / accuracy - 1.

    F_i(u) is the accuracy of the i examples with the smallest u, so mean_i F_i = 1 - AURC; the
    lift curve F_i / accuracy is compared with that of the ideal order, all right predictions
    first. Unlike AURC, it is silent on the accuracy itself.

    Args:
        scores: Uncertainty [batch], any real numbers; larger is more uncertain.
        errors: Wrong predictions [batch], booleans or 0 and 1: `probs.argmax(-1) != labels`.
        resamples: Bootstrap resamples; 0 skips the error.
        level: Probability of the interval.
        generator: Source of the resamples; by default one of our own with a fixed seed.

    Returns:
        No unit: 1 for the ideal order, 0 for a random one, negative for a reversed one; nan where
        all predictions are right or all wrong, because no order is better than another. Standard
        error and percentile interval from the bootstrap.

    Raises:
        ValueError: nan, shapes that do not fit, or errors other than 0 and 1.

    Source: Vuk and Curk, Metodoloski zvezki 3, 2006 (the lift curve); Postels et al., ICML 2022,
    arXiv:2107.00649.

    Example:
        >>> value = raulc([0.1, 0.2, 0.3, 0.4, 0.5], [0, 0, 1, 0, 1])
        >>> round(float(value), 4)
        0.7531
    """
    s, wrong = _scores_and_losses("raulc", scores, errors, name="errors")
    if not bool(((wrong == 0) | (wrong == 1)).all()):
        raise ValueError("raulc: errors must be booleans or 0 and 1; give probs.argmax(-1) != labels.")
    order = s.argsort()
    wrong, n = wrong[order], len(wrong)
    area = _Area(s[order], wrong)

    def relative_lift(counts: Tensor) -> Tensor:
        right = n - counts @ wrong
        # All r right predictions first: the risk is zero up to r, then (k - r) / k.
        ideal = 1 - right / n * (1 + area.harmonic[n] - area.harmonic[right.round().long()])
        ratio = ((1 - area(counts)) * n / right - 1) / ((1 - ideal) * n / right - 1)
        return ratio.where((right > 0) & (right < n), torch.nan)

    return bootstrap_estimate(
        "raulc", relative_lift, (len(s),), s.device, resamples=resamples, level=level, generator=generator
    )


class _Area:
    """AURC as a function of how often each example counts, [row, batch] -> [row], the batch sorted
    by rising score.
    """

    def __init__(self, scores: Tensor, losses: Tensor) -> None:
        _, self.group, sizes = _groups(scores)
        self.losses, self.groups = losses, len(sizes)
        steps = torch.arange(1, len(scores) + 1, dtype=losses.dtype, device=losses.device)
        self.harmonic = torch.nn.functional.pad((1 / steps).cumsum(0), (1, 0))

    def __call__(self, counts: Tensor) -> Tensor:
        size, loss = counts, counts * self.losses
        if self.groups < len(self.losses):
            zero = counts.new_zeros(len(counts), self.groups)
            size, loss = zero.index_add(1, self.group, size), zero.index_add(1, self.group, loss)
        before, loss_before = size.cumsum(1) - size, loss.cumsum(1) - loss
        mean = loss / size.clamp(min=1)
        # Within a tied group the j-th example brings its mean loss m to the L over N before it:
        # sum_{j=1..w} (L + j m) / (N + j) = w m + (L - m N) (H_{N+w} - H_N), with H the harmonic
        # numbers.
        first, last = before.round().long(), (before + size).round().long()
        risks = size * mean + (loss_before - mean * before) * (self.harmonic[last] - self.harmonic[first])
        return risks.sum(1) / len(self.losses)


def _groups(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Order by rising score, the group of ties of each ordered example, and the groups' sizes."""
    values, order = scores.sort()
    _, group, sizes = values.unique_consecutive(return_inverse=True, return_counts=True)
    return order, group, sizes.to(scores.dtype)


def _scores_and_losses(where: str, scores: Array, losses: Array, name: str = "losses") -> tuple[Tensor, Tensor]:
    s = reals(where, "scores", scores, "batch", infinite=True)
    l = reals(where, name, losses, "batch").to(s.device)
    check_same_batch(where, scores=s, **{name: l})
    return s, l
