"""Several threads with one network: each gets its own right outputs, and the
network is untouched.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import Untouched
from nets import mlp

from bayesnn import BNN, draw, fit, likelihoods, predict, priors, subset
from bayesnn.guides import Laplace, MeanField, MeanFieldELBO


@pytest.fixture(autouse=True)
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[int], Any], count: int = 3) -> list[Any]:
    """What each call gave, or the exception that it raised."""
    found: list[Any] = [None] * count

    def one(i: int) -> None:
        try:
            found[i] = work(i)
        except Exception as error:  # compared by the caller
            found[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def problem() -> tuple[BNN, torch.Tensor]:
    net = mlp()
    return BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=40), torch.randn(40, 3)


@pytest.mark.parametrize("vectorised", [False, True])
def test_predictions_of_given_draws(vectorised: bool, untouched: Untouched) -> None:
    model, x = problem()
    sets = [draw(MeanField(model, scale=0.5), 50) for _ in range(3)]
    expected = [predict(held, x, model=model, vectorised=vectorised) for held in sets]
    with untouched(model.net):
        for _ in range(5):
            found = in_threads(lambda i: predict(sets[i], x, model=model, vectorised=vectorised))
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True)), found


def test_draws_of_guides_have_their_own_sites(untouched: Untouched) -> None:
    models = [problem()[0] for _ in range(3)]
    named = [BNN(m.net, m.subset, m.prior, m.likelihood, size=40, name=f"net{i}") for i, m in enumerate(models)]
    guides = [MeanField(model) for model in named]
    with untouched(named[0].net):
        for _ in range(5):
            found = in_threads(lambda i: draw(guides[i], 20))
            assert [one.keys() for one in found] == [model.sites.keys() for model in named]


def test_laplace_in_threads(untouched: Untouched) -> None:
    model, x = problem()
    data = [(x, torch.arange(40) % 2)]
    expected = Laplace(model).fit(data).covariance
    with untouched(model.net):
        for _ in range(3):
            for found in in_threads(lambda i: Laplace(model).fit(data).covariance):
                torch.testing.assert_close(found, expected)


def test_a_second_fit_is_refused_and_the_first_goes_on() -> None:
    model, x = problem()
    batch = (x, torch.arange(40) % 2)
    other = MeanFieldELBO()(model, MeanField(model))
    refused: list[Any] = []

    def validate() -> float:
        refused.extend(in_threads(lambda i: fit(other, [batch], epochs=1, progress=False), 1))
        assert fit(other, [batch], epochs=1, progress=False).epochs == 1  # the same thread may
        return 1.0

    history = fit(MeanFieldELBO()(model, MeanField(model)), [batch], epochs=2, validate=validate, progress=False)
    assert history.epochs == 2
    assert len(refused) == 2
    for error in refused:
        assert isinstance(error, RuntimeError)
        assert "another fit is running in another thread" in str(error)


def test_a_prediction_beside_a_fit_changes_neither() -> None:
    model, x = problem()
    batch = (x, torch.arange(40) % 2)

    def fitted(beside: bool) -> torch.Tensor:
        torch.manual_seed(3)
        guide = MeanField(model)
        loss = MeanFieldELBO()(model, guide)
        held = {site: value.expand(10, *value.shape) for site, value in model.values().items()}
        expected = predict(held, x, model=model)

        def work(i: int) -> Any:
            if i == 0:
                return fit(loss, [batch], epochs=30, progress=False)
            return all(torch.equal(predict(held, x, model=model), expected) for _ in range(10))

        results = in_threads(work, 2 if beside else 1)
        assert not isinstance(results[0], Exception), results
        assert all(result is True for result in results[1:])
        return guide.loc.detach().clone()

    assert torch.equal(fitted(beside=True), fitted(beside=False))
