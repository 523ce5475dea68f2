"""What is particular to ensembles of rank one, beside the contract of all guides."""

import copy
import io
import pickle
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from rank_one_problems import MEMBERS, PROBLEMS, body
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import likelihoods
from bayesnn.fit import fit
from bayesnn.guides import RankOneELBO, RankOneGuide
from bayesnn.models import RankOneEnsemble, batch_ensemble, latent_rank_one
from bayesnn.models.rank_one import without_decay

every_problem = pytest.mark.parametrize("kind", PROBLEMS)
both_modes = pytest.mark.usefixtures("parameter_mode")


def drawn(guide: Any, *args: Any) -> dict[str, Tensor]:
    pyro.set_rng_seed(7)
    with torch.no_grad():
        return guide(*args)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[site], b[site]) for site in a)


@every_problem
def test_sites_are_drawn_replay_and_predict(kind: str) -> None:
    model, guide, x, y = PROBLEMS[kind]("net")
    trace = poutine.trace(guide).get_trace(x, y)
    trace.compute_log_prob()
    replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace(x, y)
    replayed.compute_log_prob()
    assert next(iter(model.sites)) == "net.member"
    for site, shape in model.sites.items():
        assert replayed.nodes[site]["value"] is trace.nodes[site]["value"]
        assert trace.nodes[site]["value"].shape == shape
    assert same(drawn(guide, x, y), drawn(guide))
    for parallel in (False, True):
        result = Predictive(model, guide=guide, num_samples=5, parallel=parallel)(x)
        assert result["net.y"].shape[:2] == (5, 6)
    assert model.outputs({site: node["value"] for site, node in trace.nodes.items() if "value" in node}, x).shape == (
        6,
        2,
    )


@every_problem
def test_fit_trains_it_in_batches(kind: str) -> None:
    model, guide, x, y = PROBLEMS[kind]()
    loader = DataLoader(TensorDataset(x.repeat(2, *(1,) * (x.dim() - 1)), torch.cat([y, y])), batch_size=4)
    loss = RankOneELBO()(model, guide)
    history = fit(loss, loader, epochs=20, optimizer=partial(torch.optim.Adam, lr=0.02), progress=False)
    assert history.loss[-1] < history.loss[0]


def test_fit_decays_shared_weights_alone() -> None:
    model, guide, x, y = PROBLEMS["rank-1, normal"]()
    loss = RankOneELBO()(model, guide)
    groups = without_decay(loss)
    undecayed = {name for name, p in loss.named_parameters() if groups(name, p) == {"weight_decay": 0.0}}
    assert undecayed == {
        *(f"model.net.net.{i}.{own}" for i in (0, 2) for own in ("r", "s", "bias")),
        *(f"guide.log_scales.{i}" for i in range(4)),
        "model.likelihood.scale.log_value",
    }
    assert {name for name, p in loss.named_parameters() if groups(name, p) == {}} == {
        "model.net.net.0.layer.weight",
        "model.net.net.2.layer.weight",
    }
    optimizer = partial(torch.optim.SGD, lr=1e-6, weight_decay=1e5)  # one step takes a tenth
    before = {name: p.detach().clone() for name, p in loss.named_parameters()}
    fit(loss, [(x, y)], epochs=1, optimizer=optimizer, groups=groups, progress=False)
    for name, parameter in loss.named_parameters():
        kept = 1.0 if name in undecayed else 0.9
        torch.testing.assert_close(parameter.detach(), kept * before[name], rtol=1e-2, atol=1e-2)


@every_problem
def test_states_pickles_and_copies(kind: str) -> None:
    model, guide, x, y = PROBLEMS[kind]()
    loss = RankOneELBO()(model, guide)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter += 0.1
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    again, guided, *_ = PROBLEMS[kind]()
    other = RankOneELBO()(again, guided)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same(drawn(guided), drawn(guide))
    for copied in (other, pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        values = drawn(copied.guide)
        assert same(values, drawn(guide))
        torch.testing.assert_close(copied.model.outputs(values, x), model.outputs(values, x))
        assert {id(p) for p in copied.parameters()}.isdisjoint(id(p) for p in loss.parameters())
        pyro.set_rng_seed(1)
        value = copied(x, y)
        pyro.set_rng_seed(1)
        torch.testing.assert_close(value, loss(x, y))


def test_a_state_of_another_model_is_refused() -> None:
    guides = {
        kind: RankOneGuide(RankOneEnsemble(net, likelihoods.categorical))
        for kind, net in {
            "two": latent_rank_one(body(), 2, latent=4),
            "three": latent_rank_one(body(), 3, latent=4),
            "longer": latent_rank_one(body(), 2, latent=5),
        }.items()
    }
    state = guides["two"].state_dict()
    for kind in ("three", "longer"):
        with pytest.raises(ValueError, match="RankOneGuide: this state belongs to another network, subset or model"):
            guides[kind].load_state_dict(state)


def test_a_component_of_a_larger_model() -> None:
    network, guide, x, _ = PROBLEMS["LP-BNN"]("net")
    scale = AutoNormal(lambda x: pyro.sample("noise", dist.HalfNormal(1.0)))

    def model(x: Tensor, y: Tensor | None = None) -> Tensor:
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        outputs = network.sample(x)[..., 0]
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(outputs, noise), obs=y)

    def both(x: Tensor, y: Tensor | None = None) -> None:
        guide(x, y)
        scale(x)

    assert model(x).shape == (6,)
    assert torch.isfinite(torch.tensor(SVI(model, both, pyro.optim.Adam({}), Trace_ELBO()).step(x, torch.zeros(6))))
    with pyro.plate("others", 6), pytest.raises(ValueError, match="called inside the plate 'others' at dim -1"):
        network.sample(x)


def test_the_users_network_is_untouched(untouched: Any) -> None:
    net = body().train()
    with untouched(net):
        for made in (batch_ensemble(net, 2), latent_rank_one(net, 2)):
            model = RankOneEnsemble(made, likelihoods.categorical, size=6)
            guide = RankOneGuide(model)
            loss = RankOneELBO()(model, guide)
            loss(torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])).backward()
            torch.optim.SGD(loss.parameters(), 0.1).step()
            model.eval()
    assert not {id(p) for p in net.parameters()} & {id(p) for p in loss.parameters()}


@pytest.mark.parametrize(
    ("layer", "kind"), [(nn.BatchNorm1d(5), "BatchNorm1d"), (nn.Dropout(0.5), "Dropout")], ids=["norm", "dropout"]
)
@pytest.mark.parametrize("per_member_norm", [False, True])
def test_one_member_needs_evaluation_mode(layer: nn.Module, kind: str, per_member_norm: bool) -> None:
    from bayesnn import predict

    net = batch_ensemble(nn.Sequential(nn.Linear(3, 5), layer, nn.Linear(5, 2)), 2, per_member_norm=per_member_norm)
    model = RankOneEnsemble(net, likelihoods.categorical)
    guide, x = RankOneGuide(model), torch.randn(6, 3)
    model.train()
    name = "MemberNorm" if per_member_norm and kind != "Dropout" else kind
    for call in (model, partial(predict, guide)):
        with pytest.raises(ValueError, match=rf"'net.1' .{name}. is in training mode"):
            call(x)
    model.eval()
    assert model(x).shape == (6, 2)


def test_arguments_of_the_model() -> None:
    net = batch_ensemble(body(), 2)
    with pytest.raises(TypeError, match=r"a network with members is needed, .* not Sequential"):
        RankOneEnsemble(body(), likelihoods.categorical)  # type: ignore[arg-type]
    for options, message in {
        "size": ({"size": 0}, "size is the number of training examples, a positive integer or None, not 0"),
        "weight": ({"kl_weight": 0.0}, "kl_weight is a positive number, not 0"),
        "name": ({"name": "a/b"}, "has a '/', which ArviZ refuses"),
        "prior": ({"prior": dist.Normal(torch.ones(2), 1.0)}, r"of one entry of r or s, but has the shape \(2,\)"),
    }.values():
        with pytest.raises(ValueError, match=message):
            RankOneEnsemble(net, likelihoods.categorical, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="encoded vectors have their prior"):
        RankOneEnsemble(latent_rank_one(body()), likelihoods.categorical, prior=dist.Normal(1.0, 1.0))
    model = RankOneEnsemble(net, likelihoods.categorical, prior=dist.Normal(1.0, 1.0))
    with pytest.raises(ValueError, match=r"no value of '0.r', which is random; there are member"):
        model.outputs({"member": torch.tensor(0)}, torch.zeros(2, 3))
    with pytest.raises(TypeError, match="a RankOneEnsemble is needed, not Sequential"):
        RankOneGuide(body())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scale must be positive, not 0"):
        RankOneGuide(model, scale=0.0)
    with pytest.raises(ValueError, match="at least one draw a member"):
        RankOneGuide(model).draws(0)


@every_problem
def test_draws_have_every_member_equally_often(kind: str) -> None:
    _, guide, *_ = PROBLEMS[kind]()
    draws = guide.draws(4)
    assert draws["member"].tolist() == [j for j in range(MEMBERS) for _ in range(4)]
    grouped = guide.draws(4, group_by_chain=True)
    for site, shape in guide.model.sites.items():
        assert draws[site].shape == (4 * MEMBERS, *shape)
        assert grouped[site].shape == (MEMBERS, 4, *shape)
    assert grouped["member"].tolist() == [[j] * 4 for j in range(MEMBERS)]
