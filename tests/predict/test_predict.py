"""`predict`: draws times inputs to outputs, the same by every way and in all chunks."""

import gc
import logging
import weakref
from importlib import import_module
from typing import Any

import pyro
import pytest
import torch
from conftest import Untouched
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import NETS, mlp
from pyro import distributions as dist
from pyro.infer import Predictive
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.functional import chunks
from bayesnn.guides import Laplace, MeanField
from bayesnn.predict import draw, predict, together
from bayesnn.predict.outputs import outputs_and_latents

OUTPUTS = import_module("bayesnn.predict.outputs")
X = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


def model_of(net: nn.Module, **options: Any) -> BNN:
    return BNN(net, subset.everything(net), priors.normal(0.7), likelihoods.categorical, **options)


@pytest.mark.parametrize("kind", NETS)
def test_loop_vmap_and_pyro_agree(kind: str, untouched: Untouched) -> None:
    net, x = NETS[kind]()
    model = model_of(net)
    held = draw(MeanField(model, scale=0.2), 4)
    expected = Predictive(model, posterior_samples=held, return_sites=("_RETURN",))(x)["_RETURN"]
    for vectorised in (False, True, None):
        with untouched(net):
            outputs = predict(held, x, 4, model=model, vectorised=vectorised, chunk=2)
        assert outputs.shape == (4, 3, 2)
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


@given(chunk=st.integers(1, 9), vectorised=st.sampled_from([True, False, None]), kind=st.sampled_from(["mlp", "dict"]))
@settings(max_examples=25, deadline=None)
def test_chunks_change_nothing(chunk: int, vectorised: bool | None, kind: str) -> None:
    torch.manual_seed(0)
    net, x = NETS[kind]()
    model = model_of(net)
    held = draw(MeanField(model, scale=0.2), 3)
    whole = predict(held, x, 3, model=model, vectorised=False)
    torch.testing.assert_close(predict(held, x, 3, model=model, chunk=chunk, vectorised=vectorised), whole)


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("guide", [MeanField, lambda model: Laplace(model).fit([(X, torch.zeros(7).long())])])
def test_every_draw_is_one_function(guide: Any, vectorised: bool) -> None:
    """All chunks see the same weights, in the order in which the guide gives them."""
    model = model_of(mlp())
    posterior = guide(model)
    pyro.set_rng_seed(1)
    held = draw(posterior, 5)
    for chunk in (1, 3, 100):
        pyro.set_rng_seed(1)
        outputs = predict(posterior, X, 5, model=model, chunk=chunk, vectorised=vectorised)
        torch.testing.assert_close(outputs, predict(held, X, 5, model=model, vectorised=False))


def test_outputs_have_no_gradient() -> None:
    model = model_of(mlp())
    guide = MeanField(model)
    assert torch.is_grad_enabled()
    for vectorised in (True, False):
        assert not predict(guide, X, 3, model=model, vectorised=vectorised).requires_grad
    assert torch.is_grad_enabled()
    assert guide.loc.grad is None


def test_names_and_other_sites() -> None:
    """Draws of two networks and of what else a model has in one dict."""
    one, two = model_of(mlp(), name="a"), model_of(mlp(), name="b")
    held = {**draw(MeanField(one, scale=0.2), 3), **draw(MeanField(two, scale=0.2), 3), "slope": torch.zeros(3, 2)}
    alone = {site: held[site] for site in one.sites}
    for vectorised in (True, False):
        found = predict(held, X, 3, model=one, vectorised=vectorised)
        torch.testing.assert_close(found, predict(alone, X, 3, model=one, vectorised=False))
    assert not torch.allclose(found, predict(held, X, 3, model=two))
    _, latents = outputs_and_latents(held, X, 2, model=one, chunk=3)
    assert latents["slope"].shape == (2, 2)
    assert not set(latents) & set(one.sites)


def test_the_path_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    model = model_of(mlp())
    for vectorised, text in ((False, "one draw at a time"), (True, "draws at a time, under vmap")):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="bayesnn"):
            predict(MeanField(model), X, 3, model=model, vectorised=vectorised)
        assert text in caplog.text


def test_a_progress_bar(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesnn.functional.progress.DELAY", 0.0)  # short calls print nothing
    model = model_of(mlp())
    predict(MeanField(model), X, 3, model=model, progress=True)
    assert "predict" in capsys.readouterr().err
    predict(MeanField(model), X, 3, model=model, progress=False)
    assert not capsys.readouterr().err


def test_recurrent_layers_take_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = NETS["lstm"]()
    model = model_of(net)
    held = draw(MeanField(model), 3)
    torch.testing.assert_close(
        predict(held, x, 3, model=model, vectorised=True), predict(held, x, 3, model=model, vectorised=False)
    )


class Counted:
    """A guide whose draws are counted while they live."""

    def __init__(self, model: BNN) -> None:
        self.model, self.alive, self.most = model, 0, 0

    def __call__(self, *args: object) -> None:
        for site, value in self.model.values().items():
            drawn = value + torch.randn_like(value)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(drawn, self.gone)
            pyro.sample(site, dist.Delta(drawn, event_dim=drawn.dim()))

    def gone(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize(("vectorised", "limit", "most"), [(False, None, 3), (True, 1, 3), (True, 500_000, 100)])
def test_not_all_draws_are_held(
    vectorised: bool, limit: int | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        monkeypatch.setattr(together, "LIMIT", limit)
    net = nn.Linear(300, 5)
    model = BNN(net, subset.named(net, "weight"), priors.normal(1.0), likelihoods.categorical)
    guide = Counted(model)
    gc.collect()
    assert predict(guide, torch.randn(4, 300), 200, model=model, vectorised=vectorised).shape == (200, 4, 5)
    gc.collect()
    assert guide.most <= most  # one is in use, one is being drawn
    assert guide.alive == 0


WIDE = nn.Sequential(nn.Linear(50, 1000), nn.Tanh(), nn.Linear(1000, 5))
# numbers: those of the draw and made of it alone, activations that it changes, activations that it
# keeps
COSTS = {
    "last": (lambda: subset.last_layer(WIDE), 5005, 5, 2000),
    "all": (lambda: subset.everything(WIDE), 51_000 + 5005, 2005, 0),
    # Full tensors of the first layer are made from its few random entries.
    "some of the first": (lambda: subset.random(WIDE, 10, within=subset.named(WIDE, "0.weight")), 2 * 50_010, 2005, 0),
}


@pytest.mark.parametrize("which", COSTS)
def test_what_a_draw_costs(which: str) -> None:
    choose, values, changed, kept = COSTS[which]
    model = BNN(WIDE, choose(), priors.normal(1.0), likelihoods.categorical)
    cost = together._cost(model, model.values(), torch.randn(20, 50))
    assert cost.values == pytest.approx(4 * values, rel=0.01)
    assert (cost.changed, cost.kept) == (4 * changed, 4 * kept)
    assert cost == together._cost(model, model.values(), torch.randn(1, 50))


def test_the_rule_for_draws_together(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {n: BNN(WIDE, case[0](), priors.normal(1.0), likelihoods.categorical) for n, case in COSTS.items()}

    def group(which: str, examples: int, vectorised: bool | None = None) -> int:
        model = models[which]
        return together.draws_together(model, model.values(), torch.randn(examples, 50), vectorised=vectorised)

    assert group("all", 1) > 1  # few numbers, few inputs
    assert group("all", 1000) == group("some of the first", 1000) == 0
    assert group("last", 1000) > 100  # all else is computed once
    assert group("all", 1000, vectorised=True) == together.LIMIT // (4 * (56_005 + 1000 * 2005))
    monkeypatch.setattr(together, "LIMIT", 1)
    assert group("last", 1000) == group("all", 1) == 0
    assert group("all", 1, vectorised=True) == 1


def test_draws_pass_together_only_where_several_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    own = OUTPUTS.map_draws

    def spy(function: Any, values: dict[str, Tensor], *, vectorised: bool) -> Tensor:
        groups.append(len(next(iter(values.values()))))
        return own(function, values, vectorised=vectorised)

    monkeypatch.setattr(OUTPUTS, "map_draws", spy)
    model = model_of(mlp())
    held = draw(MeanField(model, scale=0.2), 10)
    expected = predict(held, X, 10, model=model, vectorised=False)
    cost = together._cost(model, model.values(), X)
    per_draw = cost.values + 7 * cost.changed
    for limit, sizes in ((together.LIMIT, [10]), (4 * per_draw + 3, [4, 4, 2]), (1, [])):
        groups.clear()
        monkeypatch.setattr(together, "LIMIT", limit)
        torch.testing.assert_close(predict(held, X, 10, model=model), expected)
        assert groups == sizes


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"posterior": {"0.weight": torch.zeros(2, 4, 3)}}, ValueError, "no draws of '0.bias', which is random"),
        ({"posterior": 3}, TypeError, "a guide, an MCMC run or a dict of draws is needed, not int"),
        ({"posterior": lambda *args: None}, ValueError, "no draws of '0.weight'.*it has none"),
        ({"x": torch.full((2, 3), float("nan"))}, ValueError, r"x is not finite at index \[0, 0\]"),
        ({"x": X[:0]}, ValueError, "x has no examples"),
        ({"draws": 0}, ValueError, "at least one draw is needed"),
        ({"chunk": 0}, ValueError, "a chunk has at least one input, not 0"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    model = model_of(mlp())
    arguments = {"posterior": MeanField(model), "x": X, "draws": 2, "chunk": 10, **change}
    with pytest.raises(error, match=message):
        predict(arguments["posterior"], arguments["x"], arguments["draws"], model=model, chunk=arguments["chunk"])


def test_a_network_in_training_mode() -> None:
    net, x = NETS["batch_norm"]()
    model = model_of(net)
    guide = MeanField(model)
    net.train()
    with pytest.raises(ValueError, match=r"predict: '1' \(BatchNorm1d\) is in training mode"):
        predict(guide, x, 2, model=model)


def test_the_last_chunk_may_be_smaller() -> None:
    assert [len(part) for part in chunks(X, 3)] == [3, 3, 1]  # type: ignore[arg-type]
    model = model_of(mlp())
    assert predict(MeanField(model), X, 2, model=model, chunk=3).shape == (2, 7, 2)
