"""Scores of class probabilities: closed forms, scikit-learn as oracle, Murphy's identity, honest
standard errors.
"""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayesnn import metrics

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def predictions(seed: int, n: int = 200, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Random probabilities and labels that were *not* drawn from them."""
    source = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=source, dtype=torch.float64)
    return logits.softmax(-1), torch.randint(classes, (n,), generator=source)


def test_closed_forms() -> None:
    probs, labels = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.875, 0.125]]), torch.tensor([0, 1, 1])
    loss = -np.log([0.5, 0.75, 0.125])
    assert float(metrics.nll(probs, labels)) == pytest.approx(loss.mean(), abs=1e-12)
    assert metrics.nll(probs, labels).se == pytest.approx(loss.std(ddof=1) / math.sqrt(3), abs=1e-12)
    assert float(metrics.brier(probs, labels)) == pytest.approx((0.5 + 0.125 + 2 * 0.875**2) / 3, abs=1e-12)
    assert float(metrics.accuracy(probs, labels)) == pytest.approx(2 / 3)
    assert metrics.accuracy(probs, labels).se == pytest.approx(math.sqrt(2 / 27))


@given(st.integers(0, 10**6))
@few
def test_scikit_learn_agrees(seed: int) -> None:
    from sklearn.metrics import accuracy_score, log_loss

    probs, labels = predictions(seed)
    classes = list(range(4))
    assert float(metrics.nll(probs, labels)) == pytest.approx(log_loss(labels, probs, labels=classes), abs=1e-10)
    expected = np.mean([((p - np.eye(4)[y]) ** 2).sum() for p, y in zip(probs.numpy(), labels, strict=True)])
    assert float(metrics.brier(probs, labels)) == pytest.approx(expected, abs=1e-10)
    assert float(metrics.accuracy(probs, labels)) == pytest.approx(accuracy_score(labels, probs.argmax(-1)), abs=1e-12)


def test_nothing_is_clipped() -> None:
    result = metrics.nll(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([1, 0]))
    assert result.value == math.inf
    assert math.isnan(result.se)


def test_log_score_is_the_nll_and_averages_draws_as_probabilities() -> None:
    probs, labels = predictions(1)
    chosen = probs.gather(1, labels[:, None])[:, 0]
    assert float(metrics.log_score(chosen.log())) == pytest.approx(float(metrics.nll(probs, labels)), abs=1e-12)
    draws = torch.stack([chosen, chosen.flip(0), torch.full_like(chosen, 1e-300)])
    expected = float(-draws.mean(0).log().mean())
    assert float(metrics.log_score(draws.log())) == pytest.approx(expected, abs=1e-12)
    # Far below what a double holds, and a draw that excludes the target.
    assert float(metrics.log_score(torch.tensor([[-1e4], [-math.inf]]))) == pytest.approx(1e4 + math.log(2))


@given(st.integers(0, 10**6), st.integers(1, 20))
@few
def test_murphys_identity_holds_with_the_residual_of_stephenson(seed: int, bins: int) -> None:
    probs, labels = predictions(seed, n=60, classes=3)
    parts = metrics.brier_decomposition(probs, labels, bins=bins, resamples=0)
    total = float(parts.reliability) - float(parts.resolution) + float(parts.uncertainty) + float(parts.residual)
    assert total == pytest.approx(float(metrics.brier(probs, labels)), abs=1e-12)
    p, y = probs.numpy(), labels.numpy()
    reliability = resolution = within = 0.0
    for k in range(3):  # slow and obvious
        hit = (y == k).astype(float)
        for b in range(bins):
            inside = [i for i in range(60) if b / bins < p[i, k] <= (b + 1) / bins]
            if inside:
                f, o = p[inside, k], hit[inside]
                reliability += len(inside) / 60 * (f.mean() - o.mean()) ** 2
                resolution += len(inside) / 60 * (o.mean() - hit.mean()) ** 2
                within += len(inside) / 60 * (f.var() - 2 * ((f - f.mean()) * (o - o.mean())).mean())
    assert float(parts.reliability) == pytest.approx(reliability, abs=1e-12)
    assert float(parts.resolution) == pytest.approx(resolution, abs=1e-12)
    assert float(parts.residual) == pytest.approx(within, abs=1e-12)


def test_parts_of_extreme_forecasters() -> None:
    labels = torch.tensor([0, 1, 1, 1] * 50)
    base = metrics.brier_decomposition(torch.tensor([[0.25, 0.75]] * 200), labels)
    assert float(base.reliability) == pytest.approx(0, abs=1e-12)
    assert float(base.resolution) == pytest.approx(0, abs=1e-12)
    assert float(base.uncertainty) == pytest.approx(2 * 0.1875, abs=1e-12)
    oracle = metrics.brier_decomposition(torch.eye(2)[labels], labels)
    assert float(oracle.score) == 0
    assert float(oracle.resolution) == pytest.approx(2 * 0.1875, abs=1e-12)
    assert str(oracle).splitlines()[0].split() == ["score", "0"]


@pytest.mark.parametrize("sharpen", [1.0, 2.0])
def test_intervals_of_the_parts_cover_in_spite_of_their_biases(sharpen: float) -> None:
    # The truth is that of 300,000 examples; balanced classes put the uncertainty at its maximum,
    # where a percentile interval never covers. Of 60 intervals 43 or more cover where the true
    # rate is 0.92 or above (1e-6).
    def data(seed: int, n: int) -> tuple[Tensor, Tensor]:
        source = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(n, 4, generator=source, dtype=torch.float64)
        return (sharpen * logits).softmax(-1), torch.multinomial(logits.softmax(-1), 1, generator=source)[:, 0]

    truth = metrics.brier_decomposition(*data(1000, 300_000), bins=5, resamples=0)
    results = [metrics.brier_decomposition(*data(seed, 300), bins=5, resamples=100) for seed in range(60)]
    for name in ("reliability", "resolution", "uncertainty", "residual"):
        parts = [getattr(result, name) for result in results]
        assert sum(part.low <= getattr(truth, name).value <= part.high for part in parts) >= 43, name
        if name in ("resolution", "residual"):
            # An sd from 60 values has relative error 0.09; 4.9 of them. (The others are degenerate
            # at their ends.)
            spread = np.std([part.value for part in parts])
            assert np.mean([part.se for part in parts]) == pytest.approx(spread, rel=0.45), name


def test_uncertainty_of_unequal_classes_has_a_two_sided_interval() -> None:
    # UNC = 2 q (1 - q), so its error is 2 |1 - 2 q| sqrt(q (1 - q) / n) by the delta method.
    labels = torch.tensor([0] * 100 + [1] * 400)
    part = metrics.brier_decomposition(torch.tensor([[0.2, 0.8]] * 500), labels).uncertainty
    se = 2 * 0.6 * math.sqrt(0.16 / 500)
    assert part.se == pytest.approx(se, rel=0.11)  # 4.9 / sqrt(2 x 1000)
    assert part.interval == pytest.approx((0.32 - 1.96 * se, 0.32 + 1.96 * se), abs=0.5 * se)


@pytest.mark.parametrize("metric", [metrics.nll, metrics.brier, metrics.accuracy])
def test_intervals_cover_the_truth_as_often_as_they_say(metric: object) -> None:
    # False-alarm rate 1e-6: of 400 nominal 95 % intervals at least 345 cover if the true rate is
    # 0.93 or more.
    probs, labels = predictions(5, n=80_000)
    truth = float(metric(probs, labels))  # type: ignore[operator]
    covered = 0
    for part in range(400):
        rows = slice(200 * part, 200 * (part + 1))
        low, high = metric(probs[rows], labels[rows]).interval  # type: ignore[operator]
        covered += low <= truth <= high
    assert 345 <= covered <= 399


def test_estimates_print_two_digits_of_their_error() -> None:
    def shown(value: float, se: float, low: float = math.nan, high: float = math.nan) -> str:
        return str(metrics.Estimate(value=value, se=se, low=low, high=high, n=9, method="test"))

    assert shown(0.03124, 0.0041) == "0.0312 ± 0.0041"
    assert shown(1234.5, 56.0) == "1234 ± 56"
    assert shown(12.34, 1.5) == "12.3 ± 1.5"
    assert shown(1.0, 0.0, 0.97, 1.0) == "1 [0.97, 1]"
    assert shown(0.25, math.nan) == "0.25"
    one = metrics.mean_estimate([1.0, 2.0, 3.0])
    assert f"{one:.1f}" == "2.0 ± 0.6"
    assert f"{one}" == str(one)
    assert pickle.loads(pickle.dumps(one)) == one
    assert math.isnan(metrics.mean_estimate([1.0]).se)


def test_wilsons_interval_is_the_published_one_and_survives_the_ends() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table I: 81 / 263 and 0 / 20.
    result = metrics.accuracy(torch.tensor([[0.9, 0.1]] * 263), torch.tensor([0] * 81 + [1] * 182))
    assert result.interval == pytest.approx((0.2553, 0.3662), abs=1e-4)
    result = metrics.accuracy(torch.tensor([[0.9, 0.1]] * 20), torch.tensor([1] * 20))
    assert result.interval == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert result.low == 0
