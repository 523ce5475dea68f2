"""`MultiplicativeNoise(covariance=True)`: expectations with covariances, the outputs'
distribution, and its width.
"""

from typing import Any

import pytest
import torch
from nets import mlp
from statistical import assert_mean, assert_same_mean
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.fit import fit
from bayesnn.guides import MomentPropagationELBO, MultiplicativeNoise
from bayesnn.guides.expectations import (
    LogitDraws,
    expected_log_likelihood,
    jensen_bound,
    probit_score,
    second_order,
)
from bayesnn.guides.expectations.output_covariance import covariance_root
from bayesnn.predict import bridge, gaussian, predict, probit


def double(*values: Any) -> Tensor:
    return torch.tensor([values], dtype=torch.double)


def covariances(examples: int, n: int) -> Tensor:
    root = torch.randn(examples, n, n)
    return root @ root.mT / n


def test_heteroscedastic_golden_value() -> None:
    """In the log of a variance: mean -0.5, variance 0.2, covariance 0.1; of a standard deviation
    -0.25, 0.05, 0.05.
    """
    covariance = double([0.3, 0.05], [0.05, 0.05])
    found = expected_log_likelihood(likelihoods.heteroscedastic, double(0.7, -0.25), covariance, double(1.1))
    torch.testing.assert_close(found.item(), -1.1700212033, rtol=0, atol=6e-11)


LIKELIHOODS: dict[str, tuple[Any, Tensor]] = {
    "normal": (likelihoods.normal(0.7), torch.randn(3, 4)),
    "heteroscedastic": (likelihoods.heteroscedastic, torch.randn(3, 2)),
    "bernoulli": (likelihoods.bernoulli, torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0]])),
    "poisson": (likelihoods.poisson, torch.tensor([[0.0, 1, 2, 3], [4, 0, 1, 1], [1, 2, 0, 0]])),
}


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_expectations_are_those_of_draws(kind: str) -> None:
    likelihood, y = LIKELIHOODS[kind]
    mean, covariance = torch.randn(3, 4), covariances(3, 4) / 2
    outputs = torch.distributions.MultivariateNormal(mean, covariance).sample((200_000,))
    assert_mean(likelihood(outputs).log_prob(y), expected_log_likelihood(likelihood, mean, covariance, y).double())


@pytest.mark.parametrize("kind", ["categorical", "student t"])
def test_drawn_expectations_have_no_bias(kind: str) -> None:
    likelihood = likelihoods.categorical if kind == "categorical" else likelihoods.student_t()
    mean, covariance = 2 * torch.randn(3, 4), 3 * covariances(3, 4)
    y = torch.tensor([0, 3, 1]) if kind == "categorical" else torch.randn(3, 4)
    found = torch.stack([expected_log_likelihood(likelihood, mean, covariance, y) for _ in range(2000)])
    outputs = torch.distributions.MultivariateNormal(mean, covariance).sample((200_000,))
    for example in range(3):
        assert_same_mean(found[:, example], likelihood(outputs).log_prob(y)[:, example])


def test_derivatives_of_logit_draws_have_no_bias() -> None:
    """Beside those of quadrature over the difference of two logits, of variance
    v_1 + v_2 - 2 c.
    """
    mean, covariance = double(0.4, -0.6).requires_grad_(), double([0.5, 0.6], [0.6, 1.5]).requires_grad_()
    spread = covariance.diagonal(dim1=1, dim2=2).sum(1) - covariance[:, 0, 1] - covariance[:, 1, 0]
    label = torch.ones(1, 1, dtype=torch.double)
    exact = expected_log_likelihood(likelihoods.bernoulli, mean[:, 1:] - mean[:, :1], spread[:, None], label)
    expected = torch.autograd.grad(exact, [mean, covariance])
    draws = LogitDraws(64)
    found = [torch.autograd.grad(draws(mean, covariance, torch.tensor([1])), [mean, covariance]) for _ in range(2000)]
    for each, value in zip(zip(*found, strict=True), expected, strict=True):
        assert_mean(torch.stack(each), value)


def test_the_delta_method_is_the_second_derivative() -> None:
    mean, covariance, y = torch.randn(3, 4), covariances(3, 4), torch.tensor([0, 3, 1])
    found = second_order(mean, covariance, y)
    for example in range(3):
        curvature = hessian(lambda f, k=y[example]: f.log_softmax(0)[k], mean[example])
        expected = mean[example].log_softmax(0)[y[example]] + 0.5 * (curvature * covariance[example]).sum()
        torch.testing.assert_close(found[example], expected)


def test_diagonal_covariances_are_variances() -> None:
    mean, variance, y = torch.randn(3, 4), torch.rand(3, 4), torch.tensor([0, 3, 1])
    for rule in (second_order, jensen_bound, probit_score):
        torch.testing.assert_close(rule(mean, torch.diag_embed(variance), y), rule(mean, variance, y))
    for likelihood, target in LIKELIHOODS.values():
        found = expected_log_likelihood(likelihood, mean, torch.diag_embed(variance), target)
        torch.testing.assert_close(found, expected_log_likelihood(likelihood, mean, variance, target))
    none = torch.zeros(3, 4, 4)
    for rule in (LogitDraws(2), second_order):
        found = expected_log_likelihood(likelihoods.categorical, mean, none, y, categorical=rule)
        torch.testing.assert_close(found, likelihoods.categorical(mean).log_prob(y))


def test_roots_of_matrices_that_are_not_quite_semi_definite() -> None:
    rank_one = torch.ones(3, 3).double()
    bad = rank_one - 1e-3 * torch.eye(3).double()
    nearest = (3 - 1e-3) / 3 * rank_one
    several = torch.stack([rank_one + torch.eye(3).double(), torch.zeros(3, 3).double(), bad])
    root = covariance_root(several)
    assert (root.triu(1) == 0).all()
    torch.testing.assert_close(root @ root.mT, torch.stack([several[0], several[1], nearest]), rtol=1e-7, atol=1e-12)


def trained() -> tuple[MultiplicativeNoise, Tensor]:
    torch.manual_seed(2)
    x = 2 * torch.randn(300, 2)
    y = torch.sin(x.sum(1, keepdim=True)) + 0.1 * torch.randn(300, 1)
    net = nn.Sequential(nn.Linear(2, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 1))
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(0.2), size=300)
    guide = MultiplicativeNoise(model)
    loader = DataLoader(TensorDataset(x, y), 300)
    loss = MomentPropagationELBO()(model, guide)
    fit(loss, loader, epochs=200, optimizer=lambda p: torch.optim.Adam(p, 0.02), progress=False)
    return guide, x


def test_it_closes_most_of_the_gap_to_drawn_deviations() -> None:
    """The propagated over the drawn standard deviation of a trained network;
    300 draws know one to 4 %.
    """
    guide, x = trained()
    diagonal = guide.output_distribution(x[:100]).stddev
    guide.covariance = True
    full = guide.output_distribution(x[:100]).stddev
    drawn = predict(guide, x[:100], 300).std(0)
    assert (diagonal / drawn).median() < 0.85
    assert 0.95 < (full / drawn).median() < 1.05


def test_outputs_and_loss() -> None:
    x, labels = torch.randn(6, 3), torch.tensor([0, 2, 1, 1, 0, 2])
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    model = BNN(net, subset.everything(net), priors.normal(0.5), likelihoods.categorical, size=6)
    guide, plain = MultiplicativeNoise(model, covariance=True), MultiplicativeNoise(model)
    plain.load_state_dict(guide.state_dict())  # one posterior, two ways to its outputs
    outputs = guide.output_distribution(x, chunk=4)
    assert isinstance(outputs, torch.distributions.MultivariateNormal)
    assert outputs.batch_shape == (6,)
    drawn = predict(guide, x, 1000, model=model)
    centred = drawn - drawn.mean(0)
    sampled = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).mean(0)
    alone = torch.diag_embed(plain.output_distribution(x).variance)
    full, diagonal = ((c - sampled).square().sum() for c in (outputs.covariance_matrix, alone))
    assert full < 0.1 * diagonal
    for link in (probit, bridge):
        torch.testing.assert_close(link(model.likelihood, outputs).probs.sum(-1), torch.ones(6))
    values = []
    for categorical in (LogitDraws(20_000), second_order):
        loss = MomentPropagationELBO(categorical)(model, guide)
        value = loss(x, labels)
        expected = (
            guide.kl()
            - expected_log_likelihood(
                model.likelihood, outputs.mean, outputs.covariance_matrix, labels, categorical=LogitDraws(20_000)
            ).sum()
        )
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=0)
        gradients = torch.autograd.grad(value, list(loss.parameters()))
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        values.append(value)
    assert not torch.equal(*values)


def test_loss_of_a_linear_network_of_two_layers() -> None:
    """Normal likelihoods know mean and variance alone: the loss is that of drawn weights, without
    an approximation.
    """
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model = BNN(net, subset.everything(net), priors.normal(0.5), likelihoods.normal(1.0), size=40)
    guide, x, y = MultiplicativeNoise(model, covariance=True), torch.randn(10, 3), torch.randn(10, 2)
    with torch.no_grad():
        guide.raw += 2
        ours = MomentPropagationELBO()(model, guide)(x, y)
        outputs = predict(guide, x, 3000, model=model)
        assert_mean(guide.kl() - 4 * model.likelihood(outputs).log_prob(y).sum(1), ours.double())
        centred = outputs - guide.output_distribution(x).mean
        covariance = guide.output_distribution(x).covariance_matrix
    assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), covariance.double())
    joint = gaussian(model.likelihood, guide.output_distribution(x))
    assert joint.log_prob(y).shape == (10,)


def test_a_single_layer_has_independent_outputs() -> None:
    net, x = nn.Linear(3, 2), torch.randn(4, 3)
    model = BNN(net, subset.everything(net), priors.normal(0.5), likelihoods.normal(1.0))
    found = MultiplicativeNoise(model, covariance=True).output_distribution(x)
    expected = MultiplicativeNoise(model).output_distribution(x)
    torch.testing.assert_close(found.covariance_matrix, torch.diag_embed(expected.variance))


def test_networks_without_the_rules_are_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Softmax(1), mlp(4))
    model = BNN(net, subset.everything(net), priors.normal(0.5), likelihoods.normal(1.0))
    with pytest.raises(NotImplementedError, match="let the network return logits"):
        MultiplicativeNoise(model, covariance=True).output_distribution(torch.randn(4, 3))
