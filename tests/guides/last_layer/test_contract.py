"""What every guide must do (see test_guides_contract.py), for the guides whose model owns its body."""

import copy
import io
import pickle
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import learned, likelihoods, to_arviz
from bayesnn.fit import fit
from bayesnn.guides import LastLayer, LastLayerELBO, LastLayerMeanField, LastLayerPosterior, MeanFieldELBO
from bayesnn.models import GenerativeClassifier, NeuralLinear

MODELS = {
    "regression": lambda net, name: NeuralLinear(net, 4, 2, likelihoods.normal(learned(0.5)), size=12, name=name),
    "labels": lambda net, name: NeuralLinear(net, 4, 2, likelihoods.categorical, size=12, name=name),
    "generative": lambda net, name: GenerativeClassifier(net, 4, 2, noise=learned(1.0), size=12, name=name),
}
GUIDES = (LastLayer, LastLayerMeanField)
CASES = [*((kind, guide) for kind in MODELS for guide in GUIDES), ("regression", LastLayerPosterior)]
every_case = pytest.mark.parametrize(("kind", "build"), CASES)
trained_cases = pytest.mark.parametrize(("kind", "build"), CASES[:-1])
both_modes = pytest.mark.usefixtures("parameter_mode")


def made(kind: str, build: Any, name: str = "") -> tuple[Any, Any, Tensor, Tensor]:
    x, labels, real = torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0]), torch.randn(6, 2)
    model = MODELS[kind](nn.Sequential(nn.Linear(3, 4), nn.Tanh()), name)
    y = real if kind == "regression" else labels
    guide = build(model)
    return guide.fit([(x, y)]) if build is LastLayerPosterior else guide, model, x, y


def drawn(guide: Any, *args: Tensor) -> Tensor:
    pyro.set_rng_seed(7)
    with torch.no_grad():
        (value,) = guide(*args).values()
    return value


@every_case
def test_the_site_is_drawn_replays_and_predicts(kind: str, build: Any) -> None:
    guide, model, x, y = made(kind, build)
    trace = poutine.trace(guide).get_trace(x, y)
    replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace(x, y)
    assert replayed.nodes[model.site]["value"] is trace.nodes[model.site]["value"]
    assert trace.nodes[model.site]["value"].shape == model.sites[model.site]
    assert torch.equal(drawn(guide, x, y), drawn(guide))
    for parallel in (False, True):
        result = Predictive(model, guide=guide, num_samples=5, parallel=parallel)(x)
        assert result["y"].shape[:2] == (5, 6)
    assert to_arviz(guide, model, x, y, draws=3)["posterior"][model.site].shape[:2] == (1, 3)


@both_modes
@trained_cases
def test_elbos_and_optimisers(kind: str, build: Any) -> None:
    guide, model, x, y = made(kind, build)
    vectorised = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    names = {name: id(p) for name, p in guide.named_parameters()}
    for elbo in (Trace_ELBO(), vectorised, MeanFieldELBO(), LastLayerELBO()):
        loss = elbo(model, guide)
        before = [p.detach().clone() for p in loss.parameters()]
        loss(x, y).backward()
        torch.optim.Adam(loss.parameters(), 0.01).step()
        assert all((p - b).abs().max() > 0 for p, b in zip(loss.parameters(), before, strict=True))
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
        assert torch.tensor([svi.step(x, y), svi.evaluate_loss(x, y)]).isfinite().all()
    assert names == {name: id(p) for name, p in guide.named_parameters()}


@trained_cases
def test_fit_trains_it_in_batches(kind: str, build: Any) -> None:
    guide, model, x, y = made(kind, build)
    loader = DataLoader(TensorDataset(x.repeat(2, 1), torch.cat([y, y])), batch_size=4)
    loss = LastLayerELBO()(model, guide)
    history = fit(loss, loader, epochs=20, optimizer=partial(torch.optim.Adam, lr=0.02), progress=False)
    assert history.loss[-1] < history.loss[0]


@every_case
def test_states_pickles_and_copies(kind: str, build: Any) -> None:
    guide, model, *_ = made(kind, build)
    if build is not LastLayerPosterior:
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter += 0.1
    file = io.BytesIO()
    torch.save(guide.state_dict(), file)
    file.seek(0)
    other = build(model)
    other.load_state_dict(torch.load(file, weights_only=True))
    for same in (other, pickle.loads(pickle.dumps(guide)), copy.deepcopy(guide)):
        assert torch.equal(drawn(same), drawn(guide))
    wider = build(NeuralLinear(nn.Sequential(nn.Linear(3, 7)), 7, 2, likelihoods.normal(0.5)))
    before = copy.deepcopy(wider.state_dict())
    with pytest.raises(ValueError, match=f"{build.__name__}: this state belongs to another network, subset or model"):
        wider.load_state_dict(guide.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in wider.state_dict().items() if torch.is_tensor(value))


@both_modes
@every_case
def test_two_networks_in_one_model(kind: str, build: Any) -> None:
    (one, first, x, y), (two, second, *_) = made(kind, build, "a"), made(kind, build, "b")

    def model(x: Tensor, y: Tensor | None = None) -> None:
        first(x, y)
        second(x, y)

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        one(x, y)
        two(x, y)

    owned = [*first.parameters(), *second.parameters(), *one.parameters(), *two.parameters()]
    before = [parameter.detach().clone() for parameter in owned]
    SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x, y)
    assert all((p - b).abs().max() > 0 for p, b in zip(owned, before, strict=True))
    storages = [{t.data_ptr() for t in [*g.parameters(), *g.buffers()] if t.numel() > 1} for g in (one, two)]
    assert not storages[0] & storages[1]


@every_case
def test_closed_forms_refuse_training_mode(kind: str, build: Any) -> None:
    guide, model, x, _ = made(kind, build)
    model.features.append(nn.Dropout().train())
    closed = guide.output_distribution if kind != "generative" else guide.target_distribution
    with pytest.raises(ValueError, match=rf"{build.__name__}\.\w+_distribution: '2' .Dropout. is in training mode"):
        closed(x)
