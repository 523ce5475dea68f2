"""`to_arviz`: every number against a computation by hand, names, axes, groups,
what is left out.
"""

from pathlib import Path

import arviz
import numpy as np
import pyro
import pytest
import torch
from arviz_generations import elpd
from conftest import Untouched
from nets import mlp
from pyro import distributions as dist
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from statistical import assert_mean
from torch import Tensor

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import to_arviz, to_groups
from bayesnn.guides import MeanField

N, SIZE, DRAWS = 10, 40, 6


@pytest.fixture
def labels() -> tuple[BNN, Tensor, Tensor]:
    """A classifier whose last layer is random, with minibatch scaling."""
    net = mlp(3, 4, 2)
    model = BNN(net, subset.last_layer(net), priors.normal(1.5), likelihoods.categorical, size=SIZE)
    return model, torch.randn(N, 3), torch.randint(0, 2, (N,))


@pytest.fixture
def line() -> tuple[BNN, Tensor, Tensor]:
    """A regression with latent noise scale, called "net"."""
    net = mlp(3, 4, 1)
    noise = likelihoods.normal(dist.HalfNormal(1.0))
    model = BNN(net, subset.last_layer(net), priors.normal(1.0), noise, name="net")
    return model, torch.randn(N, 3), torch.randn(N, 1)


def held(model: BNN, draws: int = DRAWS) -> dict[str, Tensor]:
    return {site: torch.randn(draws, *shape) for site, shape in model.sites.items()}


def test_densities_by_hand(labels: tuple[BNN, Tensor, Tensor], untouched: Untouched) -> None:
    """Pointwise log likelihood unscaled, log joint scaled by size / batch, log
    prior of each block.
    """
    model, x, y = labels
    draws = held(model)
    with untouched(model.net):
        arrays = to_groups(draws, x, y, model=model).arrays
    hidden = (x @ model.net[0].weight.T + model.net[0].bias).tanh()
    outputs = torch.einsum("nh,soh->sno", hidden, draws["2.weight"]) + draws["2.bias"].unsqueeze(1)
    likelihood = outputs.log_softmax(-1).gather(-1, y.expand(DRAWS, N).unsqueeze(-1)).squeeze(-1).detach()
    prior = {name: dist.Normal(0, 1.5).log_prob(value).flatten(1).sum(1) for name, value in draws.items()}
    joint = sum(prior.values()) + SIZE / N * likelihood.sum(-1)
    np.testing.assert_allclose(arrays["log_likelihood"]["y"][0], likelihood, rtol=1e-5)
    np.testing.assert_allclose(arrays["sample_stats"]["lp"][0], joint, rtol=1e-6)
    for name in model.sites:
        np.testing.assert_allclose(arrays["log_prior"][name][0], prior[name], rtol=1e-6)
        np.testing.assert_array_equal(arrays["posterior"][name][0], draws[name])
    assert set(arrays["sample_stats"]) == {"lp"}  # a dict has no density of its own


def test_log_joint_is_that_of_the_trace(line: tuple[BNN, Tensor, Tensor]) -> None:
    """Latent scales included, and the name's prefix everywhere."""
    model, x, y = line
    arrays = to_groups(MeanField(model, x, y), x, y, model=model, draws=DRAWS).arrays
    for s in range(DRAWS):
        values = {name: torch.as_tensor(value[0, s]) for name, value in arrays["posterior"].items()}
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace(x, y)
        assert arrays["sample_stats"]["lp"][0, s] == pytest.approx(trace.log_prob_sum().item(), rel=1e-5)
    assert list(arrays["posterior"]) == ["net.2.weight", "net.2.bias", "net.y_scale"]
    assert list(arrays["log_likelihood"]) == list(arrays["posterior_predictive"]) == ["net.y"]


def test_log_q_of_a_normal_guide(labels: tuple[BNN, Tensor, Tensor]) -> None:
    model, x, y = labels
    guide = MeanField(model, scale=0.3)
    arrays = to_groups(guide, x, y, model=model, draws=DRAWS).arrays
    drawn = np.concatenate([arrays["posterior"][site][0].reshape(DRAWS, -1) for site in model.sites], -1)
    density = dist.Normal(guide.loc, guide.log_scale.exp()).log_prob(torch.as_tensor(drawn)).sum(-1)
    np.testing.assert_allclose(arrays["sample_stats"]["log_q"][0], density.detach(), rtol=1e-5)


def test_axes_are_plates(line: tuple[BNN, Tensor, Tensor]) -> None:
    """A target of one number has no axis for it, so that log likelihood, data
    and new data have the same axes.
    """
    model, x, y = line
    guide = MeanField(model, x, y)
    probe = torch.randn(5, 3)
    tree = to_arviz(
        guide, x, y, model=model, draws=DRAWS, probe=probe, dims={"net.2.bias": ["unit"]}, coords={"unit": ["a"]}
    )
    assert tree["log_likelihood"]["net.y"].dims == ("chain", "draw", "net.data")
    assert tree["posterior_predictive"]["net.y"].dims == ("chain", "draw", "net.data")
    assert tree["observed_data"]["net.y"].dims == ("net.data",)
    assert tree["constant_data"]["x"].dims[0] == "net.data"
    assert tree["posterior"]["net.2.bias"].dims == ("chain", "draw", "unit")
    assert tree["posterior"]["net.f_probe"].dims == ("chain", "draw", "probe", "out")
    assert tree["constant_data"]["x_probe"].dims[0] == "probe"
    np.testing.assert_array_equal(tree["observed_data"]["net.y"], y[:, 0])
    np.testing.assert_array_equal(tree["constant_data"]["x_probe"], probe)


def test_probe_and_functions(labels: tuple[BNN, Tensor, Tensor]) -> None:
    model, x, y = labels
    draws, probe = held(model), torch.randn(7, 3)
    spread = {"spread": lambda values: values["2.weight"].std()}
    arrays = to_groups(draws, x, y, model=model, probe=probe, functions=spread, chunk=3).arrays
    for s in range(DRAWS):
        expected = model.outputs({name: value[s] for name, value in draws.items()}, probe).detach()
        np.testing.assert_allclose(arrays["posterior"]["f_probe"][0, s], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(arrays["posterior"]["spread"][0], draws["2.weight"].flatten(1).std(1), rtol=1e-6)


def test_large_blocks_are_left_out(labels: tuple[BNN, Tensor, Tensor]) -> None:
    model, x, y = labels
    draws = held(model)
    found = to_groups(draws, x, y, model=model, limit=7)
    posterior = found.arrays["posterior"]
    assert list(posterior) == ["2.weight_norm", "2.bias", "log_joint"]
    np.testing.assert_allclose(posterior["2.weight_norm"][0], draws["2.weight"].flatten(1).norm(dim=1), rtol=1e-6)
    np.testing.assert_array_equal(posterior["log_joint"], found.arrays["sample_stats"]["lp"])
    assert found.attrs["left_out"] == "2.weight"
    metadata = found.arrays["metadata"]
    assert list(found.coords["random_site"]) == ["2.weight", "2.bias"]
    assert metadata["random_shape"].tolist() == ["(2, 4)", "(2,)"]
    assert metadata["random_numbers"].tolist() == [8, 2]
    assert metadata["random_in_posterior"].tolist() == [False, True]
    assert list(to_groups(draws, x, y, model=model, limit=8).arrays["posterior"]) == ["2.weight", "2.bias"]


def test_large_inputs_are_left_out(labels: tuple[BNN, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesnn.arviz.collect.CONSTANT_LIMIT", 29)
    model, x, y = labels
    found = to_groups(held(model), x, y, model=model)
    assert found.arrays["constant_data"] == {}
    assert found.attrs["left_out"] == "x"


def test_posterior_predictive_and_prior(line: tuple[BNN, Tensor, Tensor]) -> None:
    """New data scatter around the outputs of their own draw; prior draws are the prior's."""
    model, x, y = line
    draws = held(model, 400) | {"net.y_scale": torch.full((400,), 0.7)}
    arrays = to_groups(draws, x, y, model=model, functions={"f": lambda w: model.outputs(w, x)[:, 0]}, prior=300).arrays
    noise = torch.as_tensor(arrays["posterior_predictive"]["net.y"] - arrays["posterior"]["f"]).reshape(-1, 1)
    assert_mean(noise, 0.0)
    assert_mean(noise**2, 0.7**2)
    assert arrays["prior"]["net.2.weight"].shape == (1, 300, 1, 4)
    assert arrays["prior_predictive"]["net.y"].shape == (1, 300, N)
    assert_mean(torch.as_tensor(arrays["prior"]["net.2.weight"][0]), 0.0)
    assert_mean(torch.as_tensor(arrays["prior"]["net.y_scale"][0] ** 2), 1.0)
    assert "log_joint" not in arrays["prior"]
    assert "posterior_predictive" not in to_groups(draws, x, y, model=model, draws=2, predictive=False).arrays


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of few draws
def test_round_trip_through_netcdf(line: tuple[BNN, Tensor, Tensor], tmp_path: Path) -> None:
    model, x, y = line
    tree = to_arviz(MeanField(model, x, y), x, y, model=model, draws=50, prior=20, probe=x[:2], limit=3)
    tree.to_netcdf(str(tmp_path / "tree.nc"))
    again = arviz.from_netcdf(str(tmp_path / "tree.nc"))
    names = {name.strip("/") for name in again.groups} - {""} if hasattr(again, "children") else set(again.groups())
    assert names >= {"posterior", "log_likelihood", "sample_stats", "log_prior", "prior", "metadata", "constant_data"}
    for name in names:
        for variable in again[name].data_vars:
            np.testing.assert_array_equal(again[name][variable], tree[name][variable])
    attrs = again["posterior"].attrs
    assert attrs["method"] == "MeanField"
    assert attrs["random"] == "net.2.weight [1, 4], net.2.bias [1], net.y_scale []"
    assert attrs["inference_library"] == "bayesnn"
    assert np.isfinite(elpd(again))


def test_any_pyro_model() -> None:
    """Plates name axes; deterministic sites are in the posterior; a factor counts in lp only;
    constants by argument.
    """
    group = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])

    def model(group: Tensor, y: Tensor, *, shift: Tensor) -> None:
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        with pyro.plate("group", 3):
            effect = pyro.sample("effect", dist.Normal(0.0, spread))
        pyro.deterministic("range", effect.max() - effect.min())
        pyro.factor("penalty", -spread)
        with pyro.plate("data", len(y)), poutine.mask(mask=y < 5), poutine.scale(scale=3.0):
            pyro.sample("y/obs", dist.Normal(effect[group] + shift, 1.0), obs=y)

    y = torch.cat([torch.randn(7), torch.tensor([9.0])])
    keywords = {"shift": torch.tensor(0.5)}
    guide = AutoNormal(model)
    tree = to_arviz(guide, group, y, model=model, keywords=keywords, draws=5)
    posterior = tree["posterior"]
    assert posterior["effect"].dims == ("chain", "draw", "group")
    effect = np.asarray(posterior["effect"])
    np.testing.assert_allclose(posterior["range"], effect.max(-1) - effect.min(-1), rtol=1e-5)
    expected = (
        dist.Normal(torch.as_tensor(effect)[..., group] + 0.5, 1.0).log_prob(y).numpy()[..., :-1]
    )  # one is masked
    np.testing.assert_allclose(tree["log_likelihood"]["y.obs"], expected, rtol=1e-5, atol=1e-6)
    assert tree["log_likelihood"]["y.obs"].dims[2:] == ("y.obs_seen",)
    np.testing.assert_array_equal(tree["observed_data"]["y.obs"], y[:-1])
    assert tree["posterior"].attrs["only_in_lp"] == "penalty"
    assert set(tree["constant_data"].data_vars) == {"group", "shift"}
    assert set(tree["observed_data"].data_vars) == set(tree["posterior_predictive"].data_vars) == {"y.obs"}
    for s in range(5):
        values = {name: torch.as_tensor(np.asarray(posterior[name])[0, s]) for name in ("spread", "effect")}
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace(group, y, **keywords)
        assert float(tree["sample_stats"]["lp"][0, s]) == pytest.approx(trace.log_prob_sum().item(), rel=1e-5)


def test_observed_sites_that_depend_on_each_other() -> None:
    """New data of two sites are drawn together: the second follows the first's
    new values, not the observed ones.
    """

    def model(first: Tensor, second: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(first)):
            centre = pyro.sample("first", dist.Normal(mean, 1.0), obs=first)
            pyro.sample("second", dist.Normal(centre, 1e-3), obs=second)

    first = torch.randn(20)
    arrays = to_groups({"mean": torch.zeros(3)}, first, first + 1e-3, model=model).arrays
    new = arrays["posterior_predictive"]
    np.testing.assert_allclose(new["second"], new["first"], atol=1e-2)
    assert (np.abs(new["first"] - first.numpy()) > 1e-2).mean() > 0.9
    assert arrays["constant_data"] == {}


def test_several_targets_and_inputs() -> None:
    """An event of several numbers keeps its axis; a tuple of inputs becomes one variable each."""
    net = torch.nn.Bilinear(2, 3, 2)
    model = BNN(net, subset.everything(net), priors.normal(), likelihoods.normal(1.0))
    x, y = (torch.randn(N, 2), torch.randn(N, 3)), torch.randn(N, 2)
    arrays = to_groups(MeanField(model), x, y, model=model, draws=3).arrays
    assert arrays["log_likelihood"]["y"].shape == (1, 3, N)
    assert arrays["posterior_predictive"]["y"].shape == (1, 3, N, 2)
    assert {name: value.shape for name, value in arrays["constant_data"].items()} == {"x_0": (N, 2), "x_1": (N, 3)}


def test_copies_and_precision(line: tuple[BNN, Tensor, Tensor]) -> None:
    """What the user changes afterwards does not change the result; half
    precision becomes single.
    """
    model, x, y = line
    arrays = to_groups(
        MeanField(model, x, y), x, y, model=model, draws=2, functions={"h": lambda w: x[0].bfloat16()}
    ).arrays
    before = y.clone()
    x.zero_(), y.zero_()
    np.testing.assert_array_equal(arrays["observed_data"]["net.y"], before[:, 0])
    assert np.abs(arrays["constant_data"]["x"]).min() > 0
    assert arrays["posterior"]["h"].dtype == np.float32
    assert arrays["sample_stats"]["lp"].dtype == np.float64
