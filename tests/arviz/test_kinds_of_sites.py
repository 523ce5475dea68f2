"""Reparametrised, masked and factor sites, guides of parts, misspelt names, in ArviZ."""

import arviz
import numpy as np
import pyro
import pytest
import torch
from arviz_generations import elpd
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoMultivariateNormal, AutoNormal
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import to_arviz, to_groups

pytestmark = pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of few draws


def line(noise: "float | dist.TorchDistribution" = 0.2) -> tuple[BNN, Tensor, Tensor]:
    net = nn.Linear(2, 1)
    model = BNN(net, subset.everything(net), priors.normal(), likelihoods.normal(noise))
    return model, torch.randn(20, 2), torch.randn(20, 1)


def test_a_reparametrised_weight_is_a_variable_of_posterior() -> None:
    net, x, y = nn.Linear(3, 1), torch.randn(30, 3), torch.randn(30, 1)
    prior = priors.hierarchical(scale=dist.HalfNormal(1.0))
    model = poutine.reparam(
        BNN(net, subset.everything(net), prior, likelihoods.normal(0.2)), config={"weight": LocScaleReparam(0.0)}
    )
    tree = to_arviz(AutoNormal(model), x, y, model=model, draws=20)
    for group in ("log_likelihood", "observed_data", "posterior_predictive"):
        assert list(tree[group].data_vars) == ["y"]
    posterior = tree["posterior"]
    scaled = posterior["weight_decentered"].values * posterior["weight_scale"].values[..., None, None]
    np.testing.assert_allclose(posterior["weight"], scaled, rtol=1e-5)
    assert np.isfinite(elpd(tree))


def test_factors_and_masks() -> None:
    """Censored times: each point is in one variable, hidden ones in none, and together they are
    the model's density.
    """
    times = dist.Exponential(torch.ones(30)).sample()
    seen, times = times < 1.0, times.clamp(max=1.0)

    def model(times: Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(2.0, 2.0))
        with pyro.plate("people", len(times)):
            with poutine.mask(mask=seen):
                pyro.sample("t", dist.Exponential(rate), obs=times)
            pyro.factor("censored", torch.where(seen, torch.zeros(()), -rate * times))

    found = to_groups({"rate": torch.tensor([0.5, 2.0])}, times, model=model)
    arrays, rate = found.arrays, np.array([[[0.5], [2.0]]])
    log_likelihood = arrays["log_likelihood"]
    np.testing.assert_allclose(log_likelihood["t"], np.log(rate) - rate * times[seen].numpy(), rtol=1e-5)
    np.testing.assert_allclose(log_likelihood["censored"], np.where(seen, 0.0, -rate * times.numpy()), rtol=1e-6)
    of_data = log_likelihood["t"].sum(-1) + log_likelihood["censored"].sum(-1)
    np.testing.assert_allclose(arrays["sample_stats"]["lp"], of_data + arrays["log_prior"]["rate"], rtol=1e-5)
    assert found.dims["censored"] == ("people",)
    assert found.dims["t"] == ("t_seen",)
    np.testing.assert_array_equal(found.coords["t_seen"], np.flatnonzero(seen))
    assert found.attrs["only_in_lp"] == ""
    np.testing.assert_array_equal(arrays["observed_data"]["t"], times[seen])


@pytest.mark.parametrize("wide", [False, True])
def test_missing_targets_are_no_data(*, wide: bool) -> None:
    """Their filler is nowhere; a table with missing cells is one axis of those that are there."""
    y = torch.randn(10, 3) if wide else torch.randn(10)
    seen = torch.arange(y.numel()).reshape(y.shape) % 3 > 0
    y[~seen] = -99.0

    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 10, dim=-y.dim()), poutine.mask(mask=seen):
            if wide:
                with pyro.plate("columns", 3, dim=-1):
                    pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
            else:
                pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    draws = {"mean": torch.randn(200)}
    tree = to_arviz(draws, y, model=model)
    expected = dist.Normal(draws["mean"][:, None], 1.0).log_prob(y[seen]).numpy()
    np.testing.assert_allclose(tree["log_likelihood"]["y"][0], expected, rtol=1e-5)
    np.testing.assert_array_equal(tree["observed_data"]["y"], y[seen])
    assert tree["posterior_predictive"]["y"].shape == (1, 200, int(seen.sum()))
    assert arviz.loo(tree).n_data_points == int(seen.sum())
    # the fillers would be there, were the target not known for one
    assert "constant_data" not in str(tree)


def test_the_mask_of_a_likelihood_counts_too() -> None:
    model, x, y = line()

    class Half(nn.Module):
        def forward(self, outputs: Tensor) -> dist.TorchDistribution:
            return dist.Normal(outputs, 0.2).to_event(1).mask(torch.arange(20) < 15)

    masked = model.with_likelihood(Half())
    arrays = to_groups(AutoNormal(masked), x, y, draws=3).arrays
    np.testing.assert_array_equal(arrays["observed_data"]["y"], y[:15, 0])
    assert arrays["log_likelihood"]["y"].shape == (1, 3, 15)


def test_a_mask_that_depends_on_the_draw_is_refused() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)), poutine.mask(mask=y > mean):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    with pytest.raises(ValueError, match="mask of 'y' differs between draws"):
        to_groups({"mean": torch.tensor([-1.0, 1.0])}, torch.zeros(4), model=model)


def test_names_that_nothing_has_are_refused() -> None:
    model, x, y = line()
    guide = AutoNormal(model)
    with pytest.raises(ValueError, match=r"dims names 'weigth', which is no variable; there are .*weight"):
        to_groups(guide, x, y, draws=2, dims={"weigth": ["out", "in"]})
    with pytest.raises(ValueError, match=r"coords names 'inn', which is no axis; there are .*\bin\b"):
        to_groups(guide, x, y, draws=2, dims={"weight": ["out", "in"]}, coords={"inn": ["a", "b"]})
    tree = to_arviz(guide, x, y, draws=2, dims={"weight": ["out", "in"]}, coords={"in": ["a", "b"]})
    assert tree["posterior"]["weight"].dims[2:] == ("out", "in")
    assert list(tree["posterior"]["in"].values) == ["a", "b"]


def test_a_guide_of_parts_is_one_guide() -> None:
    model, x, y = line(dist.HalfNormal(0.5))
    guide = AutoGuideList(model)
    guide.append(AutoMultivariateNormal(poutine.block(model, expose=["weight", "bias"])))
    guide.append(AutoDelta(poutine.block(model, expose=["y_scale"])))
    guide(x, y)
    found = to_groups(guide, x, y, model=model, draws=10)
    assert found.arrays["posterior"]["weight"].shape == (1, 10, 1, 2)
    assert found.attrs["method"] == "AutoGuideList"
    assert np.ptp(found.arrays["posterior"]["y_scale"]) == 0.0


def test_what_mcmc_keeps() -> None:
    model, x, y = line(0.5)
    mcmc = MCMC(NUTS(model, max_tree_depth=3), num_samples=10, warmup_steps=10, disable_progbar=True)
    mcmc.run(x, y)
    found = to_groups(mcmc, x, y)
    assert set(found.arrays["sample_stats"]) == {"lp", "diverging"}
    rate = mcmc.diagnostics()["acceptance rate"]["chain 0"]
    assert float(found.attrs["acceptance_rate"]) == pytest.approx(rate, rel=1e-5)
