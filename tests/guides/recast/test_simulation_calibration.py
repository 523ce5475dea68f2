"""Simulation-based calibration: where truths come from the prior, their ranks among posterior
draws are uniform.

One layer with many outputs and no bias is many independent conjugate regressions, y_ij = w_j
x_i + noise, each with its own truth and data. So one fit of all of them gives as many independent
ranks as there are outputs (Talts, Betancourt, Simpson, Vehtari, Gelman 2018). Checks of ranks are
chi-squared tests at the false-alarm rate of `statistical.py`.
"""

import pytest
import torch
from pyro.infer import MCMC, NUTS, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, init_to_value
from scipy import stats
from statistical import FALSE_ALARM
from torch import Tensor, nn

from bayesnn import BNN, draw, fit, likelihoods, predict, predictive, priors, subset
from bayesnn.guides import Laplace, MeanField, MeanFieldELBO

BINS = 10
NOISE, POINTS = 0.8, 4


def replicates(count: int) -> tuple[BNN, Tensor, Tensor, Tensor]:
    """A model of `count` regressions, its data, and the true weights, drawn from the prior. The
    net holds the modes.
    """
    x = torch.linspace(-1, 1, POINTS).unsqueeze(1)
    truth = torch.randn(count, 1)
    y = x @ truth.T + NOISE * torch.randn(POINTS, count)
    net = nn.Linear(1, count, bias=False).eval()
    precision = x.square().sum() / NOISE**2 + 1
    net.weight.data = (y.T @ x / NOISE**2) / precision
    return BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(NOISE)), x, y, truth


def uniformity(truth: Tensor, draws: Tensor) -> float:
    """The p-value of uniform ranks. truth [replicate, 1], draws
    [draw, replicate, 1], draw + 1 in BINS.
    """
    ranks = (draws < truth).sum(0).flatten()
    assert (len(draws) + 1) % BINS == 0
    counts = torch.bincount(ranks * BINS // (len(draws) + 1), minlength=BINS)
    return float(stats.chisquare(counts.numpy()).pvalue)


def test_laplace_is_calibrated() -> None:
    model, x, y, truth = replicates(400)
    guide = Laplace(model).fit([(x, y)])
    assert uniformity(truth, draw(guide, 99)["weight"]) > FALSE_ALARM


def test_nuts_is_calibrated() -> None:
    model, x, y, truth = replicates(400)
    mcmc = MCMC(NUTS(model), num_samples=4 * 99, warmup_steps=150, disable_progbar=True)
    mcmc.run(x, y)
    assert uniformity(truth, mcmc.get_samples()["weight"][::4]) > FALSE_ALARM


def test_mean_field_is_calibrated_where_the_posterior_factorises() -> None:
    model, x, y, truth = replicates(400)
    guide = MeanField(model, scale=0.3)
    loss = MeanFieldELBO()(model, guide)
    fit(loss, [(x, y)], epochs=400, optimizer=lambda groups: torch.optim.Adam(groups, lr=0.02), progress=False)
    assert uniformity(truth, draw(guide, 99)["weight"]) > FALSE_ALARM


@pytest.mark.parametrize(("scale", "shift"), [(0.6, 0.0), (1.6, 0.0), (1.0, 0.4)])
def test_a_wrong_posterior_is_found(scale: float, shift: float) -> None:
    """Too narrow, too wide, or beside the mode, by about half a posterior standard deviation."""
    model, x, y, truth = replicates(400)
    guide = Laplace(model).fit([(x, y)])
    guide.posterior.scale_tril *= scale
    guide.loc += shift
    assert uniformity(truth, draw(guide, 99)["weight"]) < FALSE_ALARM


def test_nuts_and_laplace_agree_on_a_small_network() -> None:
    """A classifier whose last layer is random, at 4 x 160 inputs near the data and off them.

    The softmax makes the posterior no normal distribution, so the two agree up to Laplace's own
    error: 160 points, 14 weights: 0.05 in any probability and 0.01 on average; the log odds'
    spread within 25 % anywhere and 10 % in the median. (300 draws of NUTS have errors of 0.01 and
    4 %.)
    """
    x = torch.cat([torch.randn(80, 2) + 0.7, torch.randn(80, 2) - 0.7])
    y = torch.cat([torch.zeros(80), torch.ones(80)]).long()
    net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).eval()
    model = BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.categorical)
    mode = AutoDelta(model, init_loc_fn=init_to_value(values=model.values()))
    loss = Trace_ELBO()(model, mode)
    fit(loss, [(x, y)], epochs=500, optimizer=lambda groups: torch.optim.Adam(groups, lr=0.05), progress=False)
    guide = Laplace(model, mode=mode.median()).fit([(x, y)])
    mcmc = MCMC(NUTS(model), num_samples=300, warmup_steps=100, disable_progbar=True)
    mcmc.run(x, y)
    probe = torch.cat([x, 3 * x, -x.flip(1), x * torch.tensor([1.0, -1.0])])
    exact = predict(mcmc, probe, 300, model=model)
    laplace = predictive(guide, probe, 4_000, model=model, linearised=True).probs
    error = (laplace - exact.softmax(-1).mean(0)).abs()
    assert error.max() < 0.05
    assert error.mean() < 0.01
    odds = torch.tensor([1.0, -1.0])
    spread = (guide.output_distribution(probe).covariance_matrix @ odds @ odds).sqrt() / (exact @ odds).std(0)
    assert (spread - 1).abs().max() < 0.25
    assert (spread - 1).abs().median() < 0.10
