"""Spiegelhalter's test: moments by enumeration, a hand calculation, and what it refuses."""

import itertools
import math

import pytest
import torch

from bayesnn import metrics


def test_moments_are_exact() -> None:
    """Over all 2^5 outcomes, weighted by their probability, z has mean 0 and variance 1."""
    p = torch.tensor([0.03, 0.2, 0.45, 0.7, 0.99], dtype=torch.double)
    probs = torch.stack([1 - p, p], 1)
    mean = variance = 0.0
    for outcome in itertools.product((0, 1), repeat=5):
        y = torch.tensor(outcome)
        weight = float(torch.where(y == 1, p, 1 - p).prod())
        z = metrics.spiegelhalter(probs, y).z
        mean, variance = mean + weight * z, variance + weight * z**2
    assert mean == pytest.approx(0, abs=1e-12)
    assert variance == pytest.approx(1, abs=1e-12)


def test_it_is_the_brier_scores_excess() -> None:
    p, y = torch.tensor([0.1, 0.6, 0.8], dtype=torch.double), torch.tensor([1, 0, 1])
    excess = (p - y).square() - p * (1 - p)
    expected = float(excess.sum() / ((1 - 2 * p).square() * p * (1 - p)).sum().sqrt())
    test = metrics.spiegelhalter(torch.stack([1 - p, p], 1), y)
    assert test.z == pytest.approx(expected)
    assert test.p_value == pytest.approx(math.erfc(abs(expected) / math.sqrt(2)))


def test_certain_predictions() -> None:
    sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert metrics.spiegelhalter(sure, torch.tensor([0, 1])) == metrics.SpiegelhalterTest(0.0, 1.0)
    assert metrics.spiegelhalter(sure, torch.tensor([1, 1])) == metrics.SpiegelhalterTest(math.inf, 0.0)


def test_three_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="two classes are needed, not 3"):
        metrics.spiegelhalter(torch.full((2, 3), 1 / 3), torch.tensor([0, 1]))
