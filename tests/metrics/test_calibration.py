"""Calibration errors against a slow oracle, their noise floor and test, and the
coverage of their intervals.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayesnn import metrics

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)
ERRORS = [metrics.ece, metrics.mce, metrics.classwise_ece]
Error = Callable[..., metrics.CalibrationError]


def calibrated(seed: int, n: int, *, sharpen: float = 1.0, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Labels drawn from softmax(z), probabilities softmax(sharpen z)."""
    source = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=source, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=source)[:, 0]
    return (sharpen * logits).softmax(-1), labels


def slow_gaps(forecast: np.ndarray, hit: np.ndarray, bins: int) -> list[tuple[float, float]]:
    """(share of examples, |mean hit - mean forecast|) of every bin that is not empty."""
    gaps = []
    for b in range(bins):
        inside = [i for i, p in enumerate(forecast) if (b / bins < p <= (b + 1) / bins) or (b == 0 and p == 0)]
        if inside:
            gaps.append((len(inside) / len(forecast), abs(hit[inside].mean() - forecast[inside].mean())))
    return gaps


@given(st.integers(0, 10**6), st.integers(1, 30))
@few
def test_the_slow_oracle_agrees(seed: int, bins: int) -> None:
    probs, labels = calibrated(seed, 50, sharpen=2.0, classes=3)
    p, y = probs.numpy(), labels.numpy()
    top = slow_gaps(p.max(1), p.argmax(1) == y, bins)
    each = [sum(w * gap for w, gap in slow_gaps(p[:, k], y == k, bins)) for k in range(3)]
    assert float(metrics.ece(probs, labels, bins=bins, resamples=0)) == pytest.approx(sum(w * g for w, g in top))
    assert float(metrics.mce(probs, labels, bins=bins, resamples=0)) == pytest.approx(max(g for _, g in top))
    assert float(metrics.classwise_ece(probs, labels, bins=bins, resamples=0)) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("error", ERRORS)
def test_order_of_examples_is_irrelevant_and_values_lie_in_the_unit_interval(error: Error) -> None:
    for seed in range(20):
        probs, labels = calibrated(seed, 40, sharpen=3.0, classes=4)
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
        value = float(error(probs, labels, resamples=0))
        assert 0 <= value <= 1
        assert float(error(probs[order], labels[order], resamples=0)) == pytest.approx(value, abs=1e-12)


def test_bins_count_every_example_and_their_edges_belong_to_the_left() -> None:
    probs = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.2500001, 0.7499999], [1.0, 0.0]], dtype=torch.float64)
    table = metrics.calibration_bins(probs, torch.tensor([0, 0, 0, 1]), bins=4)
    assert table.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert table.count.tolist() == [0, 1, 2, 1]
    assert table.accuracy[1:].tolist() == [1, 0.5, 0]
    assert table.confidence[1:].tolist() == pytest.approx([0.5, 0.75, 1], abs=1e-6)
    assert all(math.isnan(x) for x in (table.accuracy[0], table.confidence[0], table.low[0], table.high[0]))
    # Wilson's interval of 1 in 2.
    assert (float(table.low[2]), float(table.high[2])) == pytest.approx((0.0945, 0.9055), abs=1e-4)
    each = metrics.classwise_ece(probs, torch.tensor([0, 0, 0, 1]), bins=4).bins
    assert each.count.shape == (2, 4)
    assert each.count.sum(1).tolist() == [4, 4]


@pytest.mark.parametrize("error", ERRORS)
def test_the_noise_floor_is_the_mean_over_truly_calibrated_data_sets(error: Error) -> None:
    # The same confidences, 300 fresh sets of labels: both means have known standard errors, bound
    # 4.9 of them (1e-6).
    probs, labels = calibrated(0, 250)
    floor = error(probs, labels).noise_floor
    source = torch.Generator().manual_seed(1)
    fresh = torch.multinomial(probs, 300, replacement=True, generator=source)
    values = np.array([float(error(probs, fresh[:, j], resamples=0)) for j in range(300)])
    assert floor == pytest.approx(values.mean(), abs=4.9 * values.std() * math.sqrt(1 / 300 + 1 / 1000))
    assert floor > 0.01


def test_published_noise_floor() -> None:
    # A calibrated ten-class predictor of low confidence has ECE 0.035 [0.020, 0.053] at n = 1,000.
    result = metrics.ece(*calibrated(0, 1000))
    assert 0.025 < result.noise_floor < 0.045
    assert result.noise_floor < result.noise_floor_high < 0.07
    assert str(result).endswith(f"(noise floor {result.noise_floor:.2g})")


@pytest.mark.parametrize("error", ERRORS)
def test_p_values_are_uniform_under_calibration(error: Error) -> None:
    # 150 data sets, p <= 0.1 expected 15 times: Binomial(150, 0.1) lies within [1, 37] but for
    # 1e-6.
    p = [error(*calibrated(seed, 150, classes=3), resamples=99).p_value for seed in range(150)]
    assert 1 <= sum(x <= 0.1 for x in p) <= 37
    assert abs(np.mean(p) - 0.5) < 4.9 / math.sqrt(12 * 150)


def test_the_test_finds_overconfidence() -> None:
    for error in (metrics.ece, metrics.classwise_ece):
        result = error(*calibrated(3, 1000, sharpen=2.0))
        assert result.p_value == pytest.approx(1 / 1001)
        assert result.low > result.noise_floor_high


@pytest.mark.parametrize(("sharpen", "n"), [(1.0, 300), (1.05, 1000), (1.1, 1000), (1.4, 1000), (2.0, 300)])
def test_intervals_cover_the_binned_truth(sharpen: float, n: int) -> None:
    # The truth is that of a million examples. Of 120 intervals, 90 or more cover if the true rate
    # is at least 0.90 (1e-6); a percentile bootstrap covers the calibrated truth never and that of
    # 1.05 in a fifth of the data sets.
    truth = float(metrics.ece(*calibrated(77, 1_000_000, sharpen=sharpen), resamples=0))
    covered = 0
    for seed in range(120):
        result = metrics.ece(*calibrated(seed, n, sharpen=sharpen), resamples=200)
        covered += result.low <= truth <= result.high
        assert result.low <= result.value <= result.high
    assert covered >= 90


def test_the_users_random_state_is_left_alone_and_a_generator_is_used() -> None:
    probs, labels = calibrated(0, 300)
    before = torch.get_rng_state()
    first, second = metrics.ece(probs, labels), metrics.ece(probs, labels)
    assert torch.equal(before, torch.get_rng_state())
    assert first == second
    other = metrics.ece(probs, labels, generator=torch.Generator().manual_seed(5))
    assert other.value == first.value
    assert other.se != first.se


def test_without_resamples_there_is_no_error() -> None:
    result = metrics.ece(*calibrated(0, 50), resamples=0)
    assert all(math.isnan(x) for x in (result.se, result.low, result.high, result.noise_floor, result.p_value))
