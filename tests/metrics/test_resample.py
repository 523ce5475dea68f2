"""The bootstrap's own arithmetic: counts, quantiles, reflection, and memory that does not grow
with the resamples.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from bayesnn import metrics
from bayesnn.metrics import _resample


def test_resamples_are_multinomial_counts() -> None:
    source = torch.Generator().manual_seed(0)
    counts = torch.cat(list(_resample.bootstrap_counts(5, 20_000, source, torch.device("cpu"))))
    assert counts.shape == (20_000, 5)
    assert bool((counts.sum(1) == 5).all())
    # Binomial(5, 1/5): mean 1, variance 0.8, kurtosis below 4; bounds of 4.9 standard errors
    # (1e-6).
    assert counts.mean(0).numpy() == pytest.approx(1, abs=4.9 * math.sqrt(0.8 / 20_000))
    assert counts.var(0).numpy() == pytest.approx(0.8, abs=4.9 * 0.8 * math.sqrt(3 / 20_000))


def test_strata_are_resampled_apart_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_resample, "CHUNK", 50)
    seen: list[torch.Tensor] = []

    def statistic(counts: torch.Tensor) -> torch.Tensor:
        seen.append(counts)
        return counts[:, 0]

    values = _resample.bootstrap(statistic, (3, 7), torch.device("cpu"), resamples=12, generator=None)
    assert [len(counts) for counts in seen] == [5, 5, 2]
    counts = torch.cat(seen)
    assert bool((counts[:, :3].sum(1) == 3).all())
    assert bool((counts[:, 3:].sum(1) == 7).all())
    assert torch.equal(values, counts[:, 0])


def test_percentile_intervals_are_central_quantiles_of_what_is_defined() -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = _resample.percentile_estimate(0.1, torch.cat([values, torch.tensor([math.nan])]), n=30, level=0.8)
    assert result.interval == pytest.approx(np.quantile(values, [0.1, 0.9]))
    assert result.se == pytest.approx(np.std(values.numpy(), ddof=1))
    assert (result.value, result.n, result.level, result.method) == (
        0.1,
        30,
        0.8,
        "percentile bootstrap, 501 resamples",
    )


def test_reflection_takes_the_bias_from_the_lower_end_only() -> None:
    values = 1.2 + 0.1 * torch.randn(500, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    result = _resample.reflected_estimate(1.0, values, n=30, level=0.9)
    assert result.low == pytest.approx(2 - np.quantile(values, 0.95))
    assert result.high == pytest.approx(1 + NormalDist().inv_cdf(0.95) * result.se)
    assert _resample.reflected_estimate(1.0, values, n=30, level=0.9, zero=True).low == 0
    assert _resample.reflected_estimate(0.1, values, n=30, level=0.9).low == 0
    # never above the value
    assert _resample.reflected_estimate(1.0, values - 0.5, n=30, level=0.9).low == 1


def test_every_resampled_metric_uses_the_generator_and_leaves_the_global_one() -> None:
    scores, wrong = torch.rand(60, generator=torch.Generator().manual_seed(3)), torch.arange(60) % 3 == 0
    before = torch.get_rng_state()
    for metric in (metrics.aupr, metrics.fpr95):
        one = metric(scores[~wrong], scores[wrong], resamples=50)
        assert one == metric(scores[~wrong], scores[wrong], resamples=50)
        other = torch.Generator().manual_seed(4)
        assert one.se != metric(scores[~wrong], scores[wrong], resamples=50, generator=other).se
    for risk in (metrics.aurc, metrics.raulc):
        one = risk(scores, wrong, resamples=50)
        assert one == risk(scores, wrong, resamples=50)
        assert one.se != risk(scores, wrong, resamples=50, generator=torch.Generator().manual_seed(4)).se
        assert math.isnan(risk(scores, wrong, resamples=0).se)
    assert torch.equal(before, torch.get_rng_state())
