"""`LocalReparameterisationELBO` and `FlipoutELBO` beside `MeanFieldELBO` and a closed form."""

import math
from typing import Any

import pytest
import torch
from layer_noise_problems import both, guided, loss_and_gradient, normalised
from nets import NETS, mlp
from pyro.infer.autoguide import AutoNormal
from statistical import assert_mean
from torch import nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import FlipoutELBO, LocalReparameterisationELBO, MeanField, MeanFieldELBO


def small_conv(kernel: int) -> nn.Module:
    """On images of 4 x 4: with a kernel of 4 a convolution has one position."""
    convolution = nn.Conv2d(1, 3, kernel, stride=2)
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(12 if kernel == 2 else 3, 2)).eval()


PROBLEMS: dict[str, Any] = {
    "mlp": (lambda: mlp(), (3,), (LocalReparameterisationELBO, FlipoutELBO)),
    "one position": (lambda: small_conv(4), (1, 4, 4), (LocalReparameterisationELBO, FlipoutELBO)),
    "convolution": (lambda: small_conv(2), (1, 4, 4), (FlipoutELBO,)),
    "normalisations": (normalised, (3,), (LocalReparameterisationELBO, FlipoutELBO)),
}


@pytest.mark.parametrize(("elbo", "problem"), [(elbo, name) for name in PROBLEMS for elbo in PROBLEMS[name][2]])
def test_loss_and_gradient_have_the_expectation_of_shared_draws(elbo: Any, problem: str) -> None:
    """100 batches of either, with independent noise: the error of the
    difference is that of both.
    """
    make, shape, _ = PROBLEMS[problem]
    model, guide = guided(make())
    x, y = torch.randn(3, *shape), torch.tensor([0, 1, 1])
    ours = [loss_and_gradient(elbo(), model, guide, x, y) for _ in range(100)]
    shared = [loss_and_gradient(MeanFieldELBO(), model, guide, x, y) for _ in range(100)]
    assert_mean(torch.stack(ours) - torch.stack(shared), 0.0)


@both
def test_gradients_have_less_variance_than_with_shared_draws(elbo: Any) -> None:
    """64 examples whose gradients agree: 1/23 to 1/34 and 1/16 to 1/20 over five seeds; a fifth is
    asked for.

    Where labels are noise, gradients cancel with shared draws as well: 1/3 to 1/9 and 1/2 to 1/6.
    """
    model, guide = guided(mlp(hidden=16), scale=0.1)
    x, y = torch.randn(64, 3), torch.ones(64, dtype=torch.long)
    model = BNN(model.net, model.subset, model.prior, model.likelihood, size=1000)
    spread = []
    for one in (elbo(), MeanFieldELBO()):
        gradients = torch.stack([loss_and_gradient(one, model, guide, x, y)[1:] for _ in range(40)])
        spread.append(gradients.var(0).sum())
    assert spread[0] < spread[1] / 5


@both
def test_closed_form_of_a_linear_gaussian_model(elbo: Any) -> None:
    """Of the loss and of its gradient, in means and deviations."""
    net = nn.Linear(2, 1).double()
    model = BNN(net, subset.everything(net), priors.normal(1.5), likelihoods.normal(0.5), size=12)
    guide = MeanField(model, scale=0.2)
    x = torch.randn(4, 2, dtype=torch.double)
    y = net(x).detach() + 0.3 * torch.randn(4, 1, dtype=torch.double)
    deviation = guide.log_scale.exp()
    prior = torch.distributions.Normal(torch.zeros_like(deviation), 1.5)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(guide.loc, deviation), prior).sum()
    ones = torch.cat([x, torch.ones_like(y)], 1)
    error = (y - ones @ guide.loc[:, None]).square() + ones.square() @ deviation.square()[:, None]
    exact = kl + 12 / 4 * (error / (2 * 0.5**2) + math.log(0.5 * math.sqrt(2 * math.pi))).sum()
    gradient = torch.autograd.grad(exact, [guide.loc, guide.log_scale])
    expected = torch.cat([exact.detach().reshape(1), *gradient])
    assert_mean(torch.stack([loss_and_gradient(elbo(), model, guide, x, y) for _ in range(400)]), expected)


def test_other_priors_have_a_draw_for_the_kl_divergence() -> None:
    model, guide = guided(mlp(), priors.laplace(0.5))
    x, y = torch.randn(3, 3), torch.tensor([0, 1, 1])
    pairs = [[elbo.loss(model, guide, x, y) for elbo in (FlipoutELBO(), MeanFieldELBO())] for _ in range(200)]
    assert_mean(torch.tensor(pairs)[:, 0] - torch.tensor(pairs)[:, 1], 0.0)


@pytest.mark.parametrize("kind", ["tied", "lstm"])
def test_shared_draws_are_those_of_the_guide(kind: str) -> None:
    net, x = NETS[kind]()
    model, guide = guided(net, scale=0.1)
    y = torch.tensor([0, 1, 1])
    ours = torch.stack([loss_and_gradient(FlipoutELBO(), model, guide, x, y) for _ in range(80)])
    assert_mean(ours - torch.stack([loss_and_gradient(MeanFieldELBO(), model, guide, x, y) for _ in range(80)]), 0.0)


@both
def test_what_is_refused(elbo: Any) -> None:
    x, y = torch.randn(3, 3), torch.tensor([0, 1, 1])
    model, guide = guided(normalised())
    name = elbo.__name__
    with pytest.raises(TypeError, match=f"{name}: noise of layers needs a BNN and a MeanField guide.*AutoNormal"):
        elbo().loss(model, AutoNormal(model), x, y)
    with pytest.raises(TypeError, match=f"{name}: .*not function and MeanField"):
        elbo().loss(lambda x, y: None, guide, x, y)
    with pytest.raises(ValueError, match="the guide has no site 'y'"):
        elbo().loss(model, guide, x)
    with pytest.raises(ValueError, match="x is not finite at index"):
        elbo().loss(model, guide, x / 0, y)
    model.net[1].train()
    with pytest.raises(ValueError, match=f"{name}: '1' .BatchNorm1d. is in training mode"):
        elbo().loss(model, guide, x, y)
