"""Whether a run's loss still fell: the stated rule, and its false-alarm rate."""

import logging
import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from bayesnn.fit import History, fit
from bayesnn.fit.convergence import eighths, still_falling


def sequence(gap: float, n: int = 5) -> list[float]:
    """8 n losses; the last two eighths alternate by 1 around means that differ by `gap`."""
    noise = [(-1.0) ** i for i in range(n)]
    return [1e3] * (6 * n) + [gap + one for one in noise] + noise


def threshold(n: int) -> float:
    """3 standard errors of the difference of two means of n values with that noise."""
    noise = torch.tensor([(-1.0) ** i for i in range(n)], dtype=torch.double)
    return 3 * math.sqrt(2 * float(noise.var()) / n)


@pytest.mark.parametrize("n", [5, 6, 75])
def test_the_rule_is_three_standard_errors(n: int) -> None:
    assert still_falling(sequence(1.0001 * threshold(n), n))
    assert not still_falling(sequence(0.9999 * threshold(n), n))
    assert not still_falling(sequence(-2 * threshold(n), n))  # it rises


def test_the_eighths_are_the_last_ones() -> None:
    losses = [float(i) for i in range(47)]
    assert eighths(losses) == ([42.0, 43.0, 44.0, 45.0, 46.0], [37.0, 38.0, 39.0, 40.0, 41.0])


def test_of_short_runs_nothing_is_said() -> None:
    falling = [100.0 - i for i in range(40)]
    assert still_falling(falling)
    assert not still_falling(falling[:39])
    assert not still_falling([])


def test_a_fall_by_rounding_is_none() -> None:
    assert not still_falling([1e6] * 35 + [1e6 - 9.0] * 5)
    assert still_falling([1e6] * 35 + [1e6 - 11.0] * 5)


@pytest.mark.parametrize("epochs", [40, 80, 600])
def test_the_false_alarm_rate_is_that_of_students_t(epochs: int) -> None:
    rate = float(stats.t.sf(3, 2 * (epochs // 8) - 2))
    stated = {40: 0.0085, 80: 0.0038, 600: 0.0016}  # as in the docstring, with one more digit
    assert rate == pytest.approx(stated[epochs], abs=5e-5)
    repeats = 4000
    noise = torch.randn(repeats, epochs, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    alarms = sum(map(still_falling, noise.tolist()))
    low, high = stats.binom.interval(0.999, repeats, rate)
    assert low <= alarms <= high


class Slow(nn.Module):
    """(at - 1)^2, at a step too small to get there."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return (self.at - x.mean()) ** 2


@pytest.mark.parametrize(("rate", "falling"), [(1e-3, True), (0.5, False)])
def test_fit_says_so_once_at_the_end(rate: float, falling: bool, caplog: pytest.LogCaptureFixture) -> None:
    sgd = partial(torch.optim.SGD, lr=rate)
    with caplog.at_level(logging.WARNING, logger="bayesnn"):
        history = fit(Slow(), [torch.ones(3)], epochs=80, optimizer=sgd, progress=False)
    assert history.still_falling is falling
    assert str(history).endswith("still falling") is falling
    assert [record.name for record in caplog.records] == ["bayesnn.fit.loop"] * falling
    if falling:
        text = caplog.records[0].getMessage()
        last, before = (sum(part) / 10 for part in (history.loss[70:], history.loss[60:70]))
        assert f"the 80 epochs were over: its mean was {last:.5g} over the last eighth" in text
        assert f"and {before:.5g} over the eighth before" in text


def test_patience_decides_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    sgd = partial(torch.optim.SGD, lr=1e-3)
    options = {"validate": lambda: 0.0, "patience": 100, "progress": False}
    with caplog.at_level(logging.WARNING, logger="bayesnn"):
        history = fit(Slow(), [torch.ones(3)], epochs=80, optimizer=sgd, **options)
    assert history.still_falling
    assert not caplog.records


def test_a_history_in_one_line() -> None:
    history = History([8.0, 2.0], [3.0, 4.5], 2, 20, "patience", 0)
    text = "2 epochs, 20 steps, stopped by 'patience', loss 8 at first and 2 at last, best epoch 0 with 3"
    assert str(history) == text
