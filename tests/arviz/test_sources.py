"""Every holder of a posterior as chains: MCMC, guides, dicts, ensembles; and what is refused."""

from collections.abc import Callable
from typing import Any

import arviz
import numpy as np
import pyro
import pytest
import torch
from arviz_generations import elpd
from nets import mlp
from pyro import distributions as dist
from pyro.infer import HMC, MCMC, NUTS, Predictive
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import khat, to_arviz, to_groups
from bayesnn.guides import Laplace, MeanField

N = 10
Case = tuple[BNN, Tensor, Tensor]


@pytest.fixture
def line() -> Case:
    """Linear in its three random weights, so that Laplace is exact."""
    net = mlp(2, 2, 1)
    model = BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.normal(0.5))
    return model, torch.randn(N, 2), torch.randn(N, 1)


# on two cores Pyro runs two chains one after the other
@pytest.mark.filterwarnings("ignore:num_chains")
@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of few draws
def test_two_chains_of_nuts(line: Case) -> None:
    model, x, y = line
    mcmc = MCMC(NUTS(model), num_samples=60, warmup_steps=30, num_chains=2, disable_progbar=True)
    mcmc.run(x, y)
    tree = to_arviz(mcmc, x, y, model=model, probe=x[:3])
    for site, value in mcmc.get_samples(group_by_chain=True).items():
        np.testing.assert_array_equal(tree["posterior"][site], value)
    assert tree["posterior"].sizes["chain"] == 2
    rhat = arviz.rhat(tree)
    assert all(np.isfinite(rhat[name]).all() for name in ("f_probe", "2.weight"))
    assert np.isfinite(elpd(tree))
    assert tree["posterior"].attrs["method"] == "NUTS"
    assert not tree["sample_stats"]["diverging"].any()
    assert "log_q" not in tree["sample_stats"]
    with pytest.raises(ValueError, match="MCMC"):
        khat(tree)


def test_divergences_and_thinning() -> None:
    """A step that is far too large diverges; the marks are Pyro's, also where
    draws are thinned.
    """

    def model(y: Tensor) -> None:
        scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(0.0, scale), obs=y)

    mcmc = MCMC(HMC(model, step_size=0.7, num_steps=3, adapt_step_size=False), 30, 0, disable_progbar=True)
    mcmc.run(torch.randn(5))
    where = mcmc.diagnostics()["divergences"]["chain 0"]
    assert 0 < len(where) < 30
    every = to_groups(mcmc, torch.randn(5), model=model).arrays
    assert every["sample_stats"]["diverging"][0].nonzero()[0].tolist() == sorted(where)
    some = to_groups(mcmc, torch.randn(5), model=model, draws=10).arrays
    chosen = torch.linspace(0, 29, 10).floor().long().tolist()
    np.testing.assert_array_equal(some["posterior"]["scale"], every["posterior"]["scale"][:, chosen])
    assert some["sample_stats"]["diverging"][0].tolist() == [s in where for s in chosen]


def test_laplace(line: Case) -> None:
    """Its joint auxiliary site stays inside; log q is the density of the
    blocks; exact here, so k-hat says so.
    """
    model, x, y = line
    net = model.net
    guide = Laplace(model).fit([(x, y)])
    exact = Laplace(model, mode=_mode(guide, x, y)).fit([(x, y)])
    tree = to_arviz(exact, x, y, model=model, draws=200)
    assert set(tree["posterior"].data_vars) == {"2.weight", "2.bias"}
    assert "_laplace" not in str(tree)
    drawn = np.concatenate([np.asarray(tree["posterior"][site])[0].reshape(200, -1) for site in model.sites], -1)
    joint = dist.MultivariateNormal(exact.loc, exact.covariance)
    np.testing.assert_allclose(tree["sample_stats"]["log_q"][0], joint.log_prob(torch.as_tensor(drawn)), rtol=1e-4)
    assert khat(tree) < 0.3
    # around weights that were never trained
    assert khat(to_arviz(guide, x, y, model=model, draws=200)) > khat(tree)
    assert model.net is net


def _mode(guide: Laplace, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """One Newton step, which reaches the mode of a quadratic."""
    model = guide.model
    values = {site: value.requires_grad_() for site, value in model.values().items()}
    joint = dist.Normal(model.outputs(values, x), 0.5).log_prob(y).sum()
    joint = joint + sum(dist.Normal(0, 1).log_prob(value).sum() for value in values.values())
    slope = torch.cat([part.flatten() for part in torch.autograd.grad(joint, list(values.values()))])
    step = (guide.covariance @ slope).split([value.numel() for value in values.values()])
    return {s: v.detach() + part.reshape(v.shape) for (s, v), part in zip(values.items(), step, strict=True)}


def test_pyro_guides() -> None:
    """log q is the density of the constrained values: with the Jacobian, without the auxiliary
    sites as variables.
    """

    def model(y: Tensor) -> None:
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, scale), obs=y)

    y = torch.randn(8)
    for guide in (AutoNormal(model, init_scale=0.5), AutoMultivariateNormal(model, init_scale=0.5)):
        arrays = to_groups(guide, y, model=model, draws=20).arrays
        assert set(arrays["posterior"]) == {"scale", "mean"}
        scale, mean = (torch.as_tensor(arrays["posterior"][name][0]) for name in ("scale", "mean"))
        free = torch.stack([scale.log(), mean], -1)
        if isinstance(guide, AutoNormal):
            locs, scales = (torch.stack([part.scale, part.mean]) for part in (guide.locs, guide.scales))
            density = dist.Normal(locs, scales).log_prob(free).sum(-1)
        else:
            density = guide.get_posterior().log_prob(free)
        np.testing.assert_allclose(arrays["sample_stats"]["log_q"][0], (density - scale.log()).detach(), rtol=1e-4)


def test_predictive_draws(line: Case) -> None:
    """What `Predictive` returns: leftovers of plates, and the site "y", which
    follows from the others.
    """
    model, x, y = line
    guide = MeanField(model, x, y)
    for parallel in (False, True):
        names = [*model.sites, "y"]
        drawn = Predictive(model, guide=guide, num_samples=4, return_sites=names, parallel=parallel)(x)
        arrays = to_groups(drawn, x, y, model=model).arrays
        assert arrays["posterior"]["2.weight"].shape == (1, 4, 1, 2)
        np.testing.assert_array_equal(arrays["posterior"]["2.weight"][0].ravel(), drawn["2.weight"].detach().flatten())


def test_members_are_chains(line: Case) -> None:
    """Restarts, members of an ensemble: a list, or a dict with an axis for them."""
    model, x, y = line
    members = [{site: torch.randn(1, *shape) for site, shape in model.sites.items()} for _ in range(3)]
    tree = to_arviz(members, x, y, model=model)
    assert tree["log_likelihood"]["y"].shape == (3, 1, N)
    assert tree["posterior"].attrs["method"] == "3 x draws"
    stacked = {site: torch.stack([member[site] for member in members]) for site in model.sites}
    grouped = to_groups(stacked, x, y, model=model, group_by_chain=True).arrays
    for group in ("posterior", "log_likelihood", "sample_stats", "log_prior"):
        for name, value in grouped[group].items():
            np.testing.assert_array_equal(value, tree[group][name])
    guides = [MeanField(model), MeanField(model)]
    tree = to_arviz(guides, x, y, model=model, draws=40)
    assert np.isfinite(arviz.rhat(tree)["2.weight"]).all()
    assert khat(tree).shape == (2,)
    assert tree["posterior"].attrs["method"] == "2 x MeanField"
    assert to_groups(nn.ModuleList(guides), x, y, model=model, draws=2).arrays["posterior"]["2.bias"].shape == (2, 2, 1)


def test_a_point_is_one_draw(line: Case) -> None:
    """A guide without spread: one draw unless more are asked for, and no density."""
    model, x, y = line
    arrays = to_groups([AutoDelta(model) for _ in range(3)], x, y, model=model).arrays
    assert arrays["posterior"]["2.weight"].shape == (3, 1, 1, 2)
    assert set(arrays["sample_stats"]) == {"lp"}
    assert to_groups(AutoDelta(model), x, y, model=model, draws=5).arrays["posterior"]["2.bias"].shape == (1, 5, 1)


def _made_without_targets(model: BNN, x: Tensor) -> AutoNormal:
    guide = AutoNormal(model)
    guide(x)
    return guide


def _with_other_prior(model: BNN, x: Tensor, y: Tensor) -> Laplace:
    return Laplace(model.with_prior(priors.normal(3.0))).fit([(x, y)])


DRAWS: dict[str, Callable[[BNN], dict[str, Tensor]]] = {
    "good": lambda model: {site: torch.zeros(2, *shape) for site, shape in model.sites.items()},
    "lacking": lambda model: {"2.weight": torch.zeros(2, 1, 2)},
    "extra": lambda model: DRAWS["good"](model) | {"3.weight": torch.zeros(2)},
    "shape": lambda model: DRAWS["good"](model) | {"2.weight": torch.zeros(2, 1, 3)},
    "uneven": lambda model: DRAWS["good"](model) | {"2.weight": torch.zeros(3, 1, 2)},
}


@pytest.mark.parametrize(
    ("posterior", "options", "message"),
    [
        (lambda m, x, y: DRAWS["lacking"](m), {}, "no draws of '2.bias', which is random in the model"),
        (lambda m, x, y: DRAWS["extra"](m), {}, "'3.weight', which is not in the model"),
        (lambda m, x, y: DRAWS["shape"](m), {}, r"'2.weight' has shape \(1, 3\), but the model's site has \(1, 2\)"),
        (lambda m, x, y: DRAWS["uneven"](m), {}, "same number of draws"),
        (lambda m, x, y: DRAWS["good"](m), {"group_by_chain": True}, r"2.weight.*shape \(2,\)"),
        (lambda m, x, y: [DRAWS["good"](m), AutoDelta(m)], {}, r"different numbers of draws, \[1, 2\]; give draws=1"),
        (lambda m, x, y: [], {}, "empty"),
        (lambda m, x, y: MCMC(NUTS(m), 5), {}, "has not run"),
        (lambda m, x, y: _made_without_targets(m, x), {}, "'y', which the model observes: it was made without the"),
        (_with_other_prior, {}, r"its prior is Normal\(loc=0, scale=3\) there and .*scale=1\) here; leave out model="),
        (lambda m, x, y: DRAWS["good"](m), {"draws": 0}, "at least one draw"),
        (lambda m, x, y: DRAWS["good"](m), {"prior": -1}, "number of draws from it"),
        (lambda m, x, y: DRAWS["good"](m), {"limit": -1}, "limit"),
        (lambda m, x, y: DRAWS["good"](m), {"chunk": 0}, "chunk"),
        (lambda m, x, y: DRAWS["good"](m), {"functions": {"2.bias": len}}, "'2.bias', which is already a variable"),
        (lambda m, x, y: DRAWS["good"](m), {"functions": {"2.weight_norm": len}, "limit": 1}, "'2.weight_norm', which"),
    ],
)
def test_refused(line: Case, posterior: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    model, x, y = line
    with pytest.raises(ValueError, match=message):
        to_groups(posterior(model, x, y), x, y, model=model, **options)


def test_refused_types_and_calls(line: Case) -> None:
    model, x, y = line
    good = DRAWS["good"](model)
    with pytest.raises(TypeError, match="not float"):
        to_groups(3.0, x, y, model=model)
    with pytest.raises(ValueError, match=r"observes nothing.*to_arviz\(posterior, x, y\)"):
        to_groups(good, x, model=model)
    with pytest.raises(ValueError, match="y has shape"):
        to_groups(good, x, y[:3], model=model)
    with pytest.raises(ValueError, match="x has 10 examples, but y has 3"):
        to_groups(good, x, y[:3], model=model, chunk=4)
    small = BNN(model.net, model.subset, model.prior, model.likelihood, size=8)
    with pytest.raises(ValueError, match="size = 8"):
        to_groups(good, x, y, model=small, chunk=4)

    def subsampled(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y), subsample_size=4) as chosen:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[chosen])

    with pytest.raises(ValueError, match="plate 'data' is subsampled"):
        to_groups({"mean": torch.zeros(2)}, y[:, 0], model=subsampled)

    def plain(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    with pytest.raises(ValueError, match="probe= needs a model of bayesnn"):
        to_groups({"mean": torch.zeros(2)}, y[:, 0], model=plain, probe=x)
    counter = iter(range(1, 9))
    with pytest.raises(ValueError, match="'f' has shape"):
        to_groups(good, x, y, model=model, functions={"f": lambda values: torch.zeros(next(counter))})
