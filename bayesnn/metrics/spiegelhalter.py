"""Spiegelhalter's test of calibration, which needs no bins."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from bayesnn.metrics._checks import Array, probabilities_and_labels


@dataclass(frozen=True)
class SpiegelhalterTest:
    """z, standard normal if the probabilities are calibrated, and the two-sided p-value of that.

    Above zero the Brier score is larger than the probabilities themselves expect: they are too
    sure.
    """

    z: float
    p_value: float


def spiegelhalter(probs: Array, labels: Array) -> SpiegelhalterTest:
    """z = sum_i (y_i - p_i) (1 - 2 p_i) / sqrt(sum_i (1 - 2 p_i)^2 p_i (1 - p_i)),
    p_i = P(y_i = 1).

    The Brier score minus its expectation if y_i ~ Bernoulli(p_i), over its standard deviation: of
    mean 0 and variance 1 for any number of examples, normal for many.

    Args:
        probs: Mean predictive probabilities [batch, 2].
        labels: 0 or 1, [batch].

    Returns:
        z, no unit, and its p-value. Where every p is 0, 1/2 or 1 nothing is random: z is 0 if the
        score is as expected and infinite otherwise.

    Raises:
        TypeError: Labels that are not integers.
        ValueError: nan, shapes that do not fit, more than two classes.

    Source: Spiegelhalter, Statistics in Medicine 5, 1986, 421-433.

    Example:
        >>> import torch
        >>> test = spiegelhalter(torch.tensor([[0.1, 0.9], [0.1, 0.9]]), torch.tensor([1, 0]))
        >>> round(test.z, 4)       # (-0.08 + 0.72) / sqrt(2 * 0.64 * 0.09)
        1.8856
    """
    p, y = probabilities_and_labels("spiegelhalter", probs, labels)
    if p.shape[1] != 2:
        raise ValueError(f"spiegelhalter: two classes are needed, not {p.shape[1]}; test one class against the rest.")
    one = p[:, 1]
    excess = float(((y - one) * (1 - 2 * one)).sum())
    sd = math.sqrt(max(float(((1 - 2 * one).square() * one * (1 - one)).sum()), 0.0))
    certain = 0.0 if abs(excess) < 1e-12 else math.copysign(math.inf, excess)
    z = excess / sd if sd > 0 else certain
    return SpiegelhalterTest(z, 2 * NormalDist().cdf(-abs(z)))
