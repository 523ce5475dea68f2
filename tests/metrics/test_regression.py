"""RMSE, CRPS and prediction intervals: closed forms, scoringrules as oracle,
coverage of their own errors.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesnn import metrics

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)
numbers = st.floats(-100, 100)


def test_rmse_and_its_delta_method() -> None:
    source = np.random.default_rng(0)
    errors = source.normal(size=500)
    result = metrics.rmse(errors + 7, np.full(500, 7.0))
    assert float(result) == pytest.approx(math.sqrt((errors**2).mean()))
    assert result.se == pytest.approx((errors**2).std(ddof=1) / math.sqrt(500) / (2 * float(result)))
    assert result.low < result.value < result.high
    # sd of the RMSE of n standard normals is about 1 / sqrt(2 n).
    assert result.se == pytest.approx(1 / math.sqrt(1000), rel=0.3)
    exact = metrics.rmse([1.0, 2.0], [1.0, 2.0])
    assert (exact.value, exact.se, exact.interval) == (0, 0, (0, 0))


@given(
    st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=8),
    st.lists(numbers, min_size=3, max_size=3),
)
@few
def test_crps_is_scoringrules_fair_estimator(draws: list[list[float]], targets: list[float]) -> None:
    expected = scoringrules.crps_ensemble(np.array(targets), np.array(draws), m_axis=0, estimator="fair").mean()
    assert float(metrics.crps(draws, targets)) == pytest.approx(expected, abs=1e-9)
    shifted = metrics.crps(np.array(draws) + 1e6, np.array(targets) + 1e6)
    assert float(shifted) == pytest.approx(expected, abs=1e-6)


def test_crps_does_not_depend_on_the_number_of_draws() -> None:
    # The exact CRPS of N(0, 1) at y, averaged over y ~ N(0, 1), is 1 / sqrt(pi); bound 4.9
    # standard errors (1e-6).
    source = torch.Generator().manual_seed(0)
    for draws in (2, 5, 50):
        y = torch.randn(20_000, generator=source)
        result = metrics.crps(torch.randn(draws, 20_000, generator=source), y)
        assert float(result) == pytest.approx(1 / math.sqrt(math.pi), abs=4.9 * result.se)
        assert result.se < 0.01


def test_crps_of_many_draws_needs_no_square_of_memory() -> None:
    # 4,000 draws for 50 targets: the pairwise form would allocate 6.4 GB.
    draws = torch.randn(4000, 50, generator=torch.Generator().manual_seed(1))
    assert 0.1 < float(metrics.crps(draws, torch.zeros(50))) < 0.5


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=2, max_size=20), st.floats(0.5, 0.99))
@few
def test_interval_scores_agree_with_scoringrules(rows: list[tuple[float, float, float]], nominal: float) -> None:
    a, b, y = np.array(rows).T
    lower, upper = np.minimum(a, b), np.maximum(a, b)
    expected = scoringrules.interval_score(y, lower, upper, 1 - nominal).mean()
    assert float(metrics.interval_score(lower, upper, y, nominal=nominal)) == pytest.approx(expected)
    assert float(metrics.coverage(lower, upper, y)) == ((lower <= y) & (y <= upper)).mean()
    assert float(metrics.width(lower, upper)) == pytest.approx((upper - lower).mean())


def test_the_interval_score_prefers_the_central_interval_of_the_truth() -> None:
    y = torch.randn(100_000, generator=torch.Generator().manual_seed(2))
    z = NormalDist().inv_cdf(0.95)
    score = {
        c: float(metrics.interval_score(-c * z * torch.ones_like(y), c * z * torch.ones_like(y), y, nominal=0.9))
        for c in (0.8, 1.0, 1.2)
    }
    assert score[1.0] < min(score[0.8], score[1.2])


def test_coverage_has_binomial_error_and_wilsons_interval() -> None:
    y = torch.arange(250) / 250
    result = metrics.coverage(torch.zeros(250), torch.full((250,), 0.9479), y)
    assert float(result) == 237 / 250
    assert result.se == pytest.approx(math.sqrt(0.948 * 0.052 / 250))
    assert result.low < 0.92
    assert metrics.coverage([0.0], [1.0], [0.5]).low > 0  # all covered, and still not certain


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_central_intervals_of_draws_are_numpys_quantiles_and_cover(level: float) -> None:
    source = np.random.default_rng(3)
    draws, y = source.normal(size=(2000, 3000)), source.normal(size=3000)
    lower, upper = metrics.central_interval(draws, level=level)
    expected = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    assert np.stack([lower, upper]) == pytest.approx(expected, abs=1e-6)
    # 2,000 draws cost next to no coverage; 4.9 standard errors (1e-6) and 0.002 for them.
    result = metrics.coverage(lower, upper, y)
    assert abs(float(result) - level) < 4.9 * math.sqrt(level * (1 - level) / 3000) + 0.002


def test_central_intervals_keep_dtype_and_inner_shape() -> None:
    lower, upper = metrics.central_interval(torch.zeros(1, 4, 2, dtype=torch.float64))
    assert (lower.shape, upper.dtype) == ((4, 2), torch.float64)
    assert metrics.central_interval(torch.zeros(5, 4))[0].dtype == torch.float32
    for precision in (torch.float64, torch.float32):
        assert metrics.central_interval(torch.zeros(5, 4, dtype=precision).numpy())[0].dtype == precision
    assert metrics.central_interval(np.zeros((5, 4), dtype=int))[0].dtype == torch.float32
