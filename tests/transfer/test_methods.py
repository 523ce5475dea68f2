"""Methods of a transfer study against closed forms, slow oracles and limits."""

import copy
import math

import pytest
import torch
from statistical import bound
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn import metrics
from bayesnn.guides import RECaSTGuide
from bayesnn.models import recast as recast_models
from bayesnn.predict import predictive
from bayesnn.transfer import (
    ConformalQuantiles,
    DrawnQuantiles,
    NormalQuantiles,
    Probabilities,
    TransferData,
    conformal,
    fine_tuned,
    interval,
    last_layer,
    last_layer_laplace,
    linear_design,
    linear_source,
    network_source,
    pooled,
    recalibrated,
    recast,
    source_only,
    target_only,
)
from bayesnn.transfer.ridge import bayesian_ridge, logistic_at, ridge, strengths


def features(n: int = 12, p: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(n, p, generator=generator, dtype=torch.double)
    return h, h[:, 0] + 0.3 * torch.randn(n, generator=generator, dtype=torch.double)


def test_leave_one_out_is_that_of_refitting() -> None:
    h, y = features()
    fit = ridge(h, y, torch.ones(4, dtype=torch.double))
    for i in range(len(y)):
        kept = torch.arange(len(y)) != i
        a, b = h[kept], y[kept]
        w = torch.linalg.solve(a.T @ a + fit.strength * torch.eye(4, dtype=torch.double), a.T @ b)
        assert float(fit.left_out[i]) == pytest.approx(float(y[i] - h[i] @ w), rel=1e-9)


def test_the_evidence_is_that_of_the_marginal_normal() -> None:
    h, y = features()

    def log_evidence(strength: float, noise: float) -> float:
        covariance = noise**2 * (torch.eye(len(y), dtype=torch.double) + h @ h.T / strength)
        return float(torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y))

    fit = bayesian_ridge(h, y)
    best = log_evidence(fit.strength, fit.noise)
    others = [log_evidence(s, fit.noise * factor) for s in strengths(h) for factor in (0.5, 0.97, 1.03, 2.0)]
    assert best > max(others)


def test_logistic_ridge_is_at_its_optimum() -> None:
    h, y = features()
    y, offset = (y > 0).double(), 0.3 * h[:, 1]
    w = logistic_at(h, y, torch.ones(4, dtype=torch.double), offset, 0.1).requires_grad_()
    loss = F.binary_cross_entropy_with_logits(offset + h @ w, y, reduction="sum") + 0.05 * w.square().sum()
    (gradient,) = torch.autograd.grad(loss, w)
    assert gradient.abs().max() < 1e-5


def test_conformal_quantiles() -> None:
    """The k-th smallest error; over all choices of the left-out error coverage
    is exactly k / (n + 1).
    """
    nine = ConformalQuantiles(torch.zeros(1), torch.arange(-9.0, 0.0))
    assert [float(interval(nine, level)[1]) for level in (0.5, 0.8, 0.9)] == [5, 8, 9]
    assert [float(end) for end in interval(nine, 0.95)] == [-math.inf, math.inf]
    assert float(nine.quantile(0.5)) == 0
    errors = torch.tensor([0.3, 2.0, 0.7, 5.0, 1.1, 0.2, 3.3, 0.9, 4.0, 1.5])
    covered = 0
    for i in range(10):
        others = ConformalQuantiles(torch.zeros(1), errors[torch.arange(10) != i])
        covered += int(errors[i] <= interval(others, 0.8)[1])
    assert covered == 8


def test_drawn_quantiles_are_the_intervals_of_draws() -> None:
    draws = torch.randn(201, 3, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(
        interval(DrawnQuantiles(draws), 0.8), metrics.central_interval(draws, level=0.8), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_recalibration_is_least_squares() -> None:
    """Its mean and its standard error of prediction, from the sums of a textbook."""
    f, noise = (
        torch.linspace(-1, 2, 15, dtype=torch.double),
        torch.randn(15, generator=torch.Generator().manual_seed(1)),
    )
    y = 2 - 3 * f + 0.1 * noise
    new = torch.tensor([0.0, 5.0], dtype=torch.double)
    found = recalibrated(TransferData(None, f, y, new, new), 0)
    assert isinstance(found, NormalQuantiles)
    centred = f - f.mean()
    slope = (centred @ y) / (centred @ centred)
    mean = y.mean() + slope * (new - f.mean())
    s2 = (y - y.mean() - slope * centred).square().sum() / 13
    torch.testing.assert_close(found.mean, mean, rtol=1e-6, atol=1e-6)
    expected = (s2 * (1 + 1 / 15 + (new - f.mean()).square() / (centred @ centred))).sqrt()
    torch.testing.assert_close(found.sd, expected, rtol=1e-6, atol=0)


def test_source_only() -> None:
    f = torch.tensor([0.0, 1.0, 2.0])
    found = source_only(TransferData(None, f, f + torch.tensor([3.0, 0.0, 4.0]), f, f), 0)
    assert isinstance(found, NormalQuantiles)
    torch.testing.assert_close(found.sd, torch.full((3,), 25 / 3, dtype=torch.double).sqrt())
    binary = source_only(TransferData(None, f, (f > 0).double(), f, (f > 0).double(), binary=True), 0)
    assert isinstance(binary, Probabilities)
    torch.testing.assert_close(binary.probs, f.double().sigmoid())


def test_temperature() -> None:
    """Logits that are ten times too large are divided by about ten."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, generator=generator, dtype=torch.double)
    y = (torch.rand(4000, generator=generator, dtype=torch.double) < logits.sigmoid()).double()
    found = recalibrated(TransferData(None, 10 * logits, y, 10 * logits, y, binary=True), 0)
    assert isinstance(found, Probabilities)
    torch.testing.assert_close(found.probs.logit() / logits, torch.ones_like(y), atol=0.15, rtol=0)


def test_last_layer_laplace_is_the_exact_posterior() -> None:
    """Of a linear layer on features, under the prior and noise that it chose: dense formulas."""
    data = with_network(binary=False)
    found = last_layer_laplace(data, 0)
    assert isinstance(found, NormalQuantiles)
    net = data.source
    assert isinstance(net, nn.Sequential)
    h, new = (torch.cat([net[:-1](x), torch.ones(len(x), 1).double()], 1) for x in (data.x_train, data.x_test))
    fit = bayesian_ridge(h, data.y_train - data.f_train)
    covariance = torch.linalg.inv(h.T @ h / fit.noise**2 + torch.eye(h.shape[1]).double() * fit.strength / fit.noise**2)
    mean = data.f_test + new @ covariance @ h.T @ (data.y_train - data.f_train) / fit.noise**2
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.sd.square(), ((new @ covariance) * new).sum(1) + fit.noise**2)


def with_network(*, binary: bool) -> TransferData:
    """A source network; the target's last layer is another one."""
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = (
            nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
            .double()
            .eval()
            .requires_grad_(requires_grad=False)
        )
    target = copy.deepcopy(net)
    target[2].weight.mul_(-3).add_(2)
    x = torch.randn(240, 3, generator=generator, dtype=torch.double)
    y = target(x).squeeze(1)
    y = (y > 0).double() if binary else y + 0.1 * torch.randn(240, generator=generator, dtype=torch.double)
    return TransferData(net, x[:40], y[:40], x[40:], y[40:], binary, None, x[:40], y[:40])


@pytest.mark.parametrize("method", [last_layer, last_layer_laplace, fine_tuned, pooled, target_only, recast])
@pytest.mark.parametrize("binary", [False, True])
def test_methods_leave_the_source_alone_and_fit(method, *, binary: bool) -> None:
    """Where the last layer differs, those that change it beat the source, which
    none of them touches.
    """
    data = with_network(binary=binary)
    assert isinstance(data.source, nn.Module)
    before = copy.deepcopy(data.source.state_dict())
    torch.manual_seed(0)
    found, alone = method(data, 0), source_only(data, 0)
    assert all(torch.equal(value, before[name]) for name, value in data.source.state_dict().items())
    if binary:
        assert isinstance(found, Probabilities)
        loss, reference = (F.binary_cross_entropy(p.probs, data.y_test) for p in (found, alone))
    else:
        low, high = interval(found, 0.9)
        assert bool((low < high).all())
        loss, reference = ((p.quantile(0.5) - data.y_test).square().mean() for p in (found, alone))
    assert loss < (0.5 if method is last_layer and not binary else 1.0) * reference


def test_recast_has_the_exact_quantiles() -> None:
    """Of the mixture over its draws, up to the Monte-Carlo error of 10,000; no
    false alarm in a million.
    """
    data = linear_design(0, n_train=40, noise=1.0, n_test=10, n_source=200)
    torch.manual_seed(0)
    found = recast(data, 7)
    model = recast_models.continuous(None)
    generator = torch.Generator().manual_seed(7)
    guide = RECaSTGuide(model).fit(data.f_train, data.y_train, generator=generator)
    corrected = guide.corrected(data.f_train, data.y_train, generator=generator)
    assert found.notes["khat"] == corrected.khat < 0.7
    assert found.notes["delta"] == float(corrected.draws["delta"].median())
    mixture = predictive(corrected.draws, data.f_test, model=model)
    for level in (0.025, 0.5, 0.9):
        error = (mixture.cdf(found.quantile(level)) - level).abs().max()
        assert error < bound(30) * math.sqrt(level * (1 - level) / 10_000)


def test_what_is_refused() -> None:
    f, y = torch.linspace(-2, 2, 20), torch.linspace(-1, 1, 20)
    data, few = TransferData(None, f, y, f, y), TransferData(None, f[:4], y[:4], f, y)
    with pytest.raises(ValueError, match="pooled: the source's own data are needed"):
        pooled(data, 0)
    for method in (last_layer, last_layer_laplace, fine_tuned):
        with pytest.raises(ValueError, match="changes the weights of a network"):
            method(data, 0)
    with pytest.raises(ValueError, match="4 training examples are too few"):
        conformal(few, 0)
    with pytest.raises(ValueError, match="no probabilities"):
        conformal(TransferData(None, f, (y > 0).double(), f, (y > 0).double(), binary=True), 0)
    two = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)).eval().requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match=r"must be nn\.Linear with one output"):
        last_layer(TransferData(two, f.unsqueeze(1), y, f.unsqueeze(1), y), 0)
    net = nn.Linear(1, 1).eval().requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="to hold a fifth out"):
        fine_tuned(TransferData(net, f[:4].unsqueeze(1), y[:4], f.unsqueeze(1), y), 0)


def test_the_design() -> None:
    """One source population for all seeds; without noise the target is the source's; binary
    responses are binary.
    """
    a, b = linear_design(0, n_train=20, noise=0.0), linear_design(1, n_train=20, noise=0.0)
    assert isinstance(a.source, nn.Linear)
    assert isinstance(b.source, nn.Linear)
    # least squares on 1,000 each
    torch.testing.assert_close(a.source.weight, b.source.weight, atol=0.15, rtol=0)
    size = torch.cat([a.source.weight.squeeze(0), a.source.bias]).abs()
    assert 0.8 < size.min() < size.max() < 5.2
    assert float((a.y_test - a.f_test).std()) == pytest.approx(0.5, abs=0.12)
    assert torch.equal(a.y_train, linear_design(0, n_train=20, noise=0.0).y_train)
    assert not torch.equal(a.y_train, b.y_train)
    assert set(linear_design(0, n_train=20, noise=1.0, binary=True).y_test.tolist()) == {0.0, 1.0}


def test_the_network_of_a_design_is_that_of_its_source_data() -> None:
    data = linear_design(3, n_train=20, noise=1.0, network=True, n_source=30)
    assert data.x_source is not None
    assert data.y_source is not None
    again = network_source(data.x_source, data.y_source, 3)
    assert torch.equal(again(data.x_test), data.source(data.x_test))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert data.source is linear_design(3, n_train=40, noise=0.0, network=True, n_source=30).source


def test_the_network_is_that_of_the_best_epoch() -> None:
    x, y = features(40)
    state = torch.random.get_rng_state()
    losses = []
    for epochs in (1, 30, 300):
        net = network_source(x, y, 0, epochs=epochs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            nn.Sequential(nn.Linear(4, 25), nn.ReLU(), nn.Linear(25, 1))
            held = torch.randperm(40)[:4]
        losses.append(float((net(x[held]).squeeze(1) - y[held]).square().mean()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="at least 10 are needed"):
        network_source(x[:9], y[:9], 0)


def test_the_linear_source_is_least_squares() -> None:
    h, y = features()
    h1 = torch.cat([h, torch.ones(len(h), 1, dtype=torch.double)], 1)
    exact = torch.linalg.solve(h1.T @ h1, h1.T @ y)
    torch.testing.assert_close(linear_source(h, y)(h).squeeze(1), h1 @ exact)
