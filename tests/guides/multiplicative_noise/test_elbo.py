"""`MomentPropagationELBO` and expected log likelihoods beside exact values,
draws and Pyro's ELBO.
"""

from typing import Any

import pyro
import pytest
import torch
from nets import mlp
from pyro.infer import Trace_ELBO
from statistical import assert_mean, assert_same_mean
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.fit import fit
from bayesnn.guides import MomentPropagationELBO, MultiplicativeNoise
from bayesnn.guides.expectations import LogitDraws, expected_log_likelihood, probit_score, second_order
from bayesnn.guides.multiplicative_noise import PerInputVariance, PerWeight
from bayesnn.moments import propagate_moments
from bayesnn.predict import predict


def double(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.double)


def test_heteroscedastic_golden_value() -> None:
    """In the log of a variance: mean -0.5, variance 0.2; in that of a standard
    deviation: -0.25 and 0.05.
    """
    found = expected_log_likelihood(likelihoods.heteroscedastic, double(0.7, -0.25), double(0.3, 0.05), double(1.1))
    torch.testing.assert_close(found.item(), -1.0880258573, rtol=0, atol=6e-11)


LIKELIHOODS: dict[str, tuple[Any, Tensor]] = {
    "normal": (likelihoods.normal(0.7), torch.randn(3, 2)),
    "a scale each": (likelihoods.normal(torch.tensor([0.7, 2.0])), torch.randn(3, 2)),
    "heteroscedastic": (likelihoods.heteroscedastic, torch.randn(3, 1)),
    "bernoulli": (likelihoods.bernoulli, torch.tensor([[0.0, 1], [1, 0], [1, 1]])),
    "poisson": (likelihoods.poisson, torch.tensor([[0.0, 1], [4, 0], [1, 2]])),
}


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_expectations_are_those_of_draws(kind: str) -> None:
    likelihood, y = LIKELIHOODS[kind]
    mean, variance = torch.randn(3, 2), torch.rand(3, 2)
    draws = likelihood(mean + variance.sqrt() * torch.randn(300_000, 3, 2)).log_prob(y)
    assert_mean(draws, expected_log_likelihood(likelihood, mean, variance, y).double())


@pytest.mark.parametrize("kind", ["categorical", "student t"])
def test_drawn_expectations_have_no_bias(kind: str) -> None:
    likelihood = likelihoods.categorical if kind == "categorical" else likelihoods.student_t()
    mean, variance = 2 * torch.randn(3, 4), 3 * torch.rand(3, 4)
    y = torch.tensor([0, 3, 1]) if kind == "categorical" else torch.randn(3, 4)
    found = torch.stack([expected_log_likelihood(likelihood, mean, variance, y) for _ in range(4000)]).double()
    draws = likelihood(mean + variance.sqrt() * torch.randn(400_000, 3, 4)).log_prob(y).double()
    for example in range(3):
        assert_same_mean(found[:, example], draws[:, example])


def test_derivatives_of_logit_draws_have_no_bias() -> None:
    """Beside those of quadrature over the difference of two logits, whose
    variance is v_1 + v_2.
    """
    mean, variance = double(0.4, -0.6).requires_grad_(), double(0.5, 1.5).requires_grad_()
    label = torch.ones(1, dtype=torch.double)
    exact = expected_log_likelihood(
        likelihoods.bernoulli, (mean[:, 1:] - mean[:, :1]), variance.sum(1, keepdim=True), label[:, None]
    )
    expected = torch.autograd.grad(exact, [mean, variance])
    draws = LogitDraws(64)
    found = [torch.autograd.grad(draws(mean, variance, torch.tensor([1])), [mean, variance]) for _ in range(3000)]
    for each, value in zip(zip(*found, strict=True), expected, strict=True):
        assert_mean(torch.stack(each), value)


def test_expectations_of_labels_without_variance() -> None:
    mean, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    expected = likelihoods.categorical(mean).log_prob(y)
    for rule in (LogitDraws(2), second_order, probit_score):
        found = expected_log_likelihood(likelihoods.categorical, mean, torch.zeros(4, 3), y, categorical=rule)
        torch.testing.assert_close(found, expected)


def linear() -> tuple[BNN, Tensor, Tensor]:
    x, y = torch.randn(20, 1, dtype=torch.double), torch.randn(20, 1, dtype=torch.double)
    net = nn.Linear(1, 1, bias=False).double()
    return BNN(net, subset.everything(net), priors.normal(0.8), likelihoods.normal(0.5), size=20), x, y


def test_at_the_exact_posterior_it_is_the_evidence() -> None:
    model, x, y = linear()
    guide = MultiplicativeNoise(model, family=PerWeight())
    variance = 1 / (x.square().sum() / 0.25 + 1 / 0.64)
    with torch.no_grad():
        guide.loc.fill_((variance * (x * y).sum() / 0.25).item())
        guide.raw.fill_(variance.expm1().log().item())
    covariance = 0.64 * x @ x.T + 0.25 * torch.eye(20)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(20).double(), covariance).log_prob(y.squeeze(1))
    loss = MomentPropagationELBO()(model, guide)
    value = loss(x, y)
    torch.testing.assert_close(value, -evidence)
    for gradient in torch.autograd.grad(value, list(loss.parameters())):
        torch.testing.assert_close(gradient, torch.zeros(1, dtype=torch.double), rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.tensor(MomentPropagationELBO().loss(model, guide, x, y)).double(), -evidence)


@pytest.mark.parametrize("family", [None, PerWeight(), PerInputVariance()], ids=["input", "weight", "input variance"])
def test_it_is_the_elbo_of_drawn_weights_for_a_linear_network(family: Any) -> None:
    net = nn.Linear(3, 2)
    model = BNN(net, subset.everything(net), priors.normal(0.5), likelihoods.normal(1.0), size=40)
    guide, x, y = MultiplicativeNoise(model, family=family), torch.randn(10, 3), torch.randn(10, 2)
    with torch.no_grad():
        ours = MomentPropagationELBO()(model, guide)(x, y)
        outputs = predict(guide, x, 4000, model=model)
        assert_mean(guide.kl() - 4 * model.likelihood(outputs).log_prob(y).sum(1), ours.double())
    drawn = Trace_ELBO(num_particles=100, vectorize_particles=True, max_plate_nesting=1)(model, guide)(x, y)
    torch.testing.assert_close(drawn, ours, rtol=0.1, atol=0)


def test_batches_add_to_the_whole() -> None:
    model, x, y = linear()
    guide = MultiplicativeNoise(model)
    loss = MomentPropagationELBO()(model, guide)
    whole = loss(x, y)
    for size in (1, 4, 10):
        batches = [loss(a, b) for a, b in zip(x.split(size), y.split(size), strict=True)]
        torch.testing.assert_close(torch.stack(batches).mean(), whole)
    tempered = MomentPropagationELBO(kl_weight=0.1)(model, guide)(x, y)
    torch.testing.assert_close(tempered, whole - 0.9 * guide.kl())


def test_it_trains_with_fit_and_learns_the_noise() -> None:
    x = torch.randn(200, 1)
    y = torch.sin(2 * x) + 0.1 * torch.randn(200, 1)
    net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(learned(1.0)), size=200)
    guide = MultiplicativeNoise(model)
    loss = MomentPropagationELBO()(model, guide)
    before = loss(x, y).item()
    fit(loss, DataLoader(TensorDataset(x, y), 50), epochs=40, optimizer=lambda p: torch.optim.Adam(p, 0.02))
    assert loss(x, y).item() < before - 50
    assert 0.05 < model.likelihood.scale().item() < 0.5
    assert (guide.output_distribution(x).mean - torch.sin(2 * x)).square().mean() < 0.1


def test_it_does_not_depend_on_the_mode_of_gradients() -> None:
    model, x, y = linear()
    guide = MultiplicativeNoise(model)
    found = propagate_moments(model.net, guide.moments(), x)
    with torch.no_grad():
        again = propagate_moments(model.net, guide.moments(), x)
        torch.testing.assert_close(
            MomentPropagationELBO()(model, guide)(x, y), MomentPropagationELBO()(model, guide)(x, y)
        )
    torch.testing.assert_close(found.variance, again.variance)


def test_bad_input() -> None:
    net, x = mlp(), torch.randn(4, 3)
    labels = torch.tensor([0, 1, 1, 0])

    def loss(likelihood: Any = likelihoods.categorical, **options: Any) -> Any:
        model = BNN(net, subset.everything(net), priors.normal(0.5), likelihood, **options)
        return MomentPropagationELBO()(model, MultiplicativeNoise(model))

    with pytest.raises(ValueError, match="targets are needed"):
        loss()(x)
    with pytest.raises(ValueError, match=r"y at index .1. is 2, but the network has 2 outputs"):
        loss()(x, torch.tensor([0, 2, 1, 0]))
    with pytest.raises(ValueError, match="size = 3 examples of training data were announced, but one batch has 4"):
        loss(size=3)(x, labels)
    with pytest.raises(ValueError, match=r"the scale of the noise is latent .site 'y_scale'."):
        loss(likelihoods.normal(pyro.distributions.HalfCauchy(1.0)))(x, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"kl_weight is a number from 0"):
        MomentPropagationELBO(kl_weight=-1.0)
    with pytest.raises(ValueError, match="draws come in pairs"):
        LogitDraws(3)
    broken = loss()
    net.append(nn.BatchNorm1d(2).train())
    with pytest.raises(ValueError, match=r"'3' .BatchNorm1d. is in training mode"):
        broken(x, labels)
