"""Scores of a prediction: (metric, level, value) triples, level 0 where a metric has none."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesnn import metrics
from bayesnn.transfer.predictions import Prediction, Probabilities, Quantiles, interval

Score = tuple[str, float, float]
"""Metric, level (0: none), value."""
CONFIDENT, BAND = 0.95, 0.025
"""Test examples whose more probable class has about this probability, and how nearly."""
QUANTILES = 200
"""Levels of the quadrature of the CRPS."""


def scores(prediction: Prediction, y: Tensor, levels: Sequence[float]) -> list[Score]:
    """The scores of a prediction, which depend on whether the targets are real or binary.

    For real targets they are the coverage, length and interval score at each level, the CRPS, and
    the RMSE of the medians. For zeros and ones they are the AUC, the ECE, the log loss ("nll",
    nats), the Brier score, Spiegelhalter's z, and the share of *true* labels among the examples
    whose more probable class has probability .95 +- .025, with their number. A score that does not
    exist (the AUC of one class, a share of no example, the CRPS of a distribution without tails)
    is left out. The numbers of `prediction.notes` follow.

    Raises:
        ValueError: a prediction for another number of examples; quantiles that are nan or cross.
    """
    if isinstance(prediction, Probabilities):
        triples = _binary(prediction.probs, y)
    else:
        triples = _continuous(prediction, y.double(), levels)
    return [*triples, *((name, 0.0, float(value)) for name, value in prediction.notes.items())]


def crps_of_quantiles(prediction: Quantiles, y: Tensor, count: int = QUANTILES) -> Tensor:
    """CRPS_i = 2 int_0^1 (1[y_i < q_i(a)] - a) (q_i(a) - y_i) da in units of y, [batch], by the
    midpoint rule.

    It exists where means do not: of Cauchy tails too.

    Reference: Gneiting, Ranjan (2011), Comparing density forecasts using threshold- and
    quantile-weighted scoring rules.

    >>> from bayesnn.transfer.predictions import NormalQuantiles
    >>> normal = NormalQuantiles(torch.zeros(1).double(), torch.ones(1).double())
    >>> round(crps_of_quantiles(normal, torch.zeros(1).double()).item(), 3)       # (sqrt(2) - 1) / sqrt(pi)
    0.234
    """
    total = torch.zeros_like(y)
    for i in range(count):
        level = (i + 0.5) / count
        q = prediction.quantile(level)
        total = total + 2 * ((y < q).double() - level) * (q - y)
    return total / count


def _continuous(prediction: Quantiles, y: Tensor, levels: Sequence[float]) -> list[Score]:
    triples: list[Score] = []
    for level in levels:
        low, high = interval(prediction, level)
        triples += [
            ("coverage", level, float(metrics.coverage(low, high, y))),
            ("length", level, float(metrics.width(low, high))),
            ("interval_score", level, float(metrics.interval_score(low, high, y, nominal=level))),
        ]
    crps = float(crps_of_quantiles(prediction, y).mean())
    if math.isfinite(crps):
        triples.append(("crps", 0.0, crps))
    triples.append(("rmse", 0.0, float(metrics.rmse(prediction.quantile(0.5), y))))
    return triples


def _binary(p: Tensor, y: Tensor) -> list[Score]:
    probs, labels = torch.stack([1 - p, p], 1), y.long()
    triples = [
        ("auc", 0.0, float(metrics.auroc(p[labels == 0], p[labels == 1])) if 0 < labels.sum() < len(y) else math.nan),
        ("ece", 0.0, float(metrics.ece(probs, labels, resamples=0))),
        ("nll", 0.0, float(metrics.nll(probs, labels))),
        ("brier", 0.0, float(metrics.brier(probs, labels))),
        ("spiegelhalter_z", 0.0, metrics.spiegelhalter(probs, labels).z),
    ]
    confidence, predicted = probs.max(1)
    band = (confidence - CONFIDENT).abs() <= BAND
    right = (predicted == labels)[band].double()
    triples.append(("coverage", CONFIDENT, float(right.mean()) if len(right) else math.nan))
    triples.append(("confident", CONFIDENT, float(len(right))))
    return [score for score in triples if not math.isnan(score[2])]
