"""AUROC, AUPR, FPR95, AURC and rAULC: oracles, invariances, golden values and honest intervals."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesnn import metrics

few = settings(max_examples=50, deadline=None, derandomize=True, database=None)
# Few distinct values, so that ties are common.
some = st.lists(st.integers(-3, 3), min_size=2, max_size=12)


@given(some, some)
@few
def test_scikit_learn_agrees_with_and_without_ties(low: list[int], high: list[int]) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    truth, scores = [0] * len(low) + [1] * len(high), low + high
    assert float(metrics.auroc(low, high)) == pytest.approx(roc_auc_score(truth, scores))
    assert float(metrics.aupr(low, high, resamples=0)) == pytest.approx(average_precision_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert float(metrics.fpr95(low, high, resamples=0)) == pytest.approx(false[np.argmax(true >= 0.95)])


@given(some, some)
@few
def test_only_the_order_counts_and_a_sign_reverses_it(low: list[int], high: list[int]) -> None:
    value = metrics.auroc(low, high)
    a, b = np.array(low, dtype=float), np.array(high, dtype=float)
    # far outside [0, 1]: nothing is squashed
    squashed = metrics.auroc(1e3 * np.exp(5 * a), 1e3 * np.exp(5 * b))
    assert squashed == value
    assert float(metrics.auroc(-a, -b)) == pytest.approx(1 - value.value)
    assert float(metrics.auroc(b, a)) == pytest.approx(1 - value.value)
    assert value.low <= value.value <= value.high


def test_delongs_variance_is_that_of_the_definition() -> None:
    source = np.random.default_rng(0)
    low, high = source.integers(0, 6, 15).astype(float), source.integers(1, 8, 9).astype(float)
    kernel = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    variance = kernel.mean(1).var(ddof=1) / 9 + kernel.mean(0).var(ddof=1) / 15
    assert metrics.auroc(low, high).se == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize(("shift", "n_in", "n_out"), [(0.0, 60, 60), (1.0, 100, 40), (2.5, 50, 50)])
def test_auroc_intervals_cover_the_binormal_truth(shift: float, n_in: int, n_out: int) -> None:
    # AUROC = Phi(shift / sqrt 2). 500 intervals: 435 or more cover (1e-6) where the true rate is
    # 0.93 or above.
    truth = NormalDist().cdf(shift / math.sqrt(2))
    source = np.random.default_rng(1)
    results = [metrics.auroc(source.normal(size=n_in), shift + source.normal(size=n_out)) for _ in range(500)]
    assert 435 <= sum(r.low <= truth <= r.high for r in results) <= 499
    spread = np.std([r.value for r in results])
    # 4.9 / sqrt(2 x 500)
    assert np.mean([r.se for r in results]) == pytest.approx(spread, rel=0.16)


def test_perfect_separation_keeps_an_interval() -> None:
    # The ends where |1 - a| = z sd(a), Hanley and McNeil's sd with both sizes averaged.
    result = metrics.auroc([0.0, 0.1, 0.2, 0.3], [1.0, 2.0, 3.0])
    assert (result.value, result.se, result.high) == (1, 0, 1)
    a, z = result.low, NormalDist().inv_cdf(0.975)
    sd = math.sqrt(a * (1 - a) * (1 + 2.5 * ((1 - a) / (2 - a) + a / (1 + a))) / 12)
    assert 1 - a == pytest.approx(z * sd, rel=1e-6)
    assert 0.3 < a < 0.9
    assert str(result).startswith("1 [0.")
    tied = metrics.auroc([1.0] * 5, [1.0] * 5)
    assert tied.value == 0.5
    assert tied.low < 0.25 < 0.75 < tied.high
    assert math.isnan(metrics.auroc([1.0, 2.0], [3.0]).se)


@pytest.mark.parametrize("metric", [metrics.aupr, metrics.fpr95])
def test_bootstrap_errors_match_the_spread_over_data_sets(metric: Callable[..., metrics.Estimate]) -> None:
    # 200 data sets: the sd has relative error 0.05; 0.3 leaves room for the bootstrap's own noise.
    # Coverage as above.
    source = np.random.default_rng(2)
    sets = [(source.normal(size=300), 1.5 + source.normal(size=200)) for _ in range(200)]
    results = [metric(a, b, resamples=200) for a, b in sets]
    truth = float(metric(source.normal(size=300_000), 1.5 + source.normal(size=200_000), resamples=0))
    assert np.mean([r.se for r in results]) == pytest.approx(np.std([r.value for r in results]), rel=0.3)
    assert sum(r.low <= truth <= r.high for r in results) >= 163  # true rate 0.92 or more, 1e-6


def test_extremes_of_the_ranking() -> None:
    assert float(metrics.fpr95([0.0, 1.0], [2.0, 3.0])) == 0
    assert float(metrics.fpr95([2.0, 3.0], [0.0, 1.0])) == 1
    assert float(metrics.aupr([2.0, 3.0], [0.0, 1.0])) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert float(metrics.auroc([-math.inf, 0.0], [math.inf, 1.0])) == 1
    # 19 of 20 outliers lie above all of the others: the twentieth may be missed.
    assert float(metrics.fpr95([0.0] * 10, [-1.0] + [1.0] * 19)) == 0
    assert float(metrics.fpr95([0.0] * 10, [-1.0] + [1.0] * 19, recall=0.96)) == 1


def slow_curve(scores: np.ndarray, losses: np.ndarray, orders: int, source: np.random.Generator) -> np.ndarray:
    """Selective risks averaged over random orders of tied examples."""
    risks = []
    for _ in range(orders):
        order = np.lexsort((source.random(len(scores)), scores))
        risks.append(losses[order].cumsum() / np.arange(1, len(scores) + 1))
    return np.mean(risks, 0)


def test_risk_coverage_is_the_expectation_over_random_orders_of_ties() -> None:
    source = np.random.default_rng(3)
    scores, losses = source.integers(0, 4, 12).astype(float), source.random(12)
    curve = metrics.risk_coverage(scores, losses)
    # 20,000 orders: each mean within 4.9 standard errors, at most 0.5 / sqrt(20,000) each.
    assert curve.risk.numpy() == pytest.approx(slow_curve(scores, losses, 20_000, source), abs=4.9 * 0.5 / 141)
    assert curve.coverage.numpy() == pytest.approx(np.arange(1, 13) / 12)
    assert float(metrics.aurc(scores, losses)) == pytest.approx(float(curve.risk.mean()))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=15))
@few
def test_counting_an_example_twice_is_repeating_it(rows: list[tuple[int, int, int]]) -> None:
    from bayesnn.metrics.selective import _Area

    scores, losses, counts = (np.array(column, dtype=float) for column in zip(*sorted(rows), strict=True))
    if counts.sum() == 0:
        return
    repeats = counts.astype(int)
    expected = float(metrics.aurc(scores.repeat(repeats), losses.repeat(repeats), resamples=0))
    tensors = (torch.from_numpy(x) for x in (scores, losses))
    # Counts are those of a resample of the same size: scale the area from len(rows) to the size
    # they have.
    area = _Area(*tensors)
    steps = torch.arange(1, repeats.sum() + len(rows) + 1, dtype=torch.float64)
    area.harmonic = torch.nn.functional.pad((1 / steps).cumsum(0), (1, 0))
    assert float(area(torch.from_numpy(counts)[None])) * len(rows) / counts.sum() == pytest.approx(expected)


def test_golden_lift_curve() -> None:
    # A published definition's code: AULC 0.338889, ideal 0.45, ratio 0.753086.
    scores, errors = [0.1, 0.2, 0.3, 0.4, 0.5], [0, 0, 1, 0, 1]
    assert float(metrics.raulc(scores, errors)) == pytest.approx(0.7530864198, abs=1e-9)
    assert float(metrics.raulc(errors, errors)) == pytest.approx(1)
    # A constant score is worth nothing, although the file's order would give 0.753.
    assert float(metrics.raulc([1.0] * 5, errors)) == pytest.approx(0, abs=1e-12)
    assert float(metrics.raulc(np.negative(errors), errors)) < 0


def test_lift_is_undefined_without_errors_or_without_successes() -> None:
    for errors in ([0, 0, 0], [1, 1, 1]):
        result = metrics.raulc([0.1, 0.2, 0.3], errors)
        assert math.isnan(result.value)
        assert math.isnan(result.se)


@pytest.mark.parametrize("metric", [metrics.aurc, metrics.raulc])
def test_rejection_intervals_cover_and_errors_are_right(metric: Callable[..., metrics.Estimate]) -> None:
    source = np.random.default_rng(4)

    def data(n: int) -> tuple[np.ndarray, np.ndarray]:
        scores = source.normal(size=n)
        return scores.round(1), (source.random(n) < 1 / (1 + np.exp(1.5 - scores))).astype(float)

    truth = float(metric(*data(1_000_000), resamples=0))
    results = [metric(*data(400), resamples=200) for _ in range(150)]
    assert sum(r.low <= truth <= r.high for r in results) >= 120  # true rate 0.92 or more, 1e-6
    assert np.mean([r.se for r in results]) == pytest.approx(np.std([r.value for r in results]), rel=0.3)


def test_any_loss_has_a_risk_and_independent_scores_have_the_mean() -> None:
    losses = np.random.default_rng(5).random(50) * 7
    assert float(metrics.aurc(np.zeros(50), losses)) == pytest.approx(losses.mean())
    ideal, worst = float(metrics.aurc(losses, losses)), float(metrics.aurc(-losses, losses))
    assert ideal < losses.mean() < worst
