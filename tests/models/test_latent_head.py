"""TST and V-TST: the golden values and tests of their specification."""

import pyro
import pytest
import torch
from latent_head_problems import LATENT, N, data, made
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from statistical import assert_mean
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from bayesnn import likelihoods, predict, predictive
from bayesnn.guides import AmortisedHead, MeanFieldELBO
from bayesnn.models import LatentHead


def test_kl_divergence_golden() -> None:
    """T2: the KL of one example, and its published weight 1 / latent."""
    model = LatentHead(2, 2, likelihoods.categorical)
    guide = AmortisedHead(nn.Identity(), 1, model, bounded=False)
    with torch.no_grad():
        for head, value in ((guide.mean_head, [0.3, -1.2]), (guide.variance_head, [-0.5, -2.0])):
            assert head is not None
            head[2].weight.zero_()
            head[2].bias.copy_(torch.tensor(value))
    loc, variance = guide.moments(torch.zeros(1, 1))
    assert variance is not None
    kl = kl_divergence(Normal(loc, variance.sqrt()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl, torch.tensor([[0.0982653299, 1.2876676416]]))
    with torch.no_grad():  # a decoder that knows nothing: -E log p(y | z) = log 2
        model.decoder.weight.zero_()
        model.decoder.bias.zero_()
    loss = MeanFieldELBO()(model, guide)(torch.zeros(1, 1), torch.tensor([0]))
    torch.testing.assert_close(loss - torch.log(torch.tensor(2.0)), torch.tensor(0.6929664857))


def test_variance_is_bounded_by_the_priors() -> None:
    """T3."""
    guide = AmortisedHead(nn.Identity(), 1, LatentHead(3, 2, likelihoods.categorical))
    assert guide.variance_head is not None
    with torch.no_grad():
        guide.variance_head[2].weight.zero_()
        guide.variance_head[2].bias.copy_(torch.tensor([-2.0, 0.0, 3.0]))
    variance = guide.moments(torch.zeros(1, 1))[1]
    torch.testing.assert_close(variance, torch.tensor([[0.1192029220, 0.5, 0.9525741268]]))


def test_no_variance_is_tst() -> None:
    """T4: with log variance -inf every draw is the network of the mean head; a point is the same
    without a variance.
    """
    model, guide = made()
    assert guide.variance_head is not None
    x = torch.randn(5, 3)
    with torch.no_grad():
        guide.variance_head[2].bias.fill_(-200.0)
    plain = model.decoder(guide.mean_head(guide.phi(x)))
    torch.testing.assert_close(predict(guide, x, 3, model=model), plain.expand(3, 5, 3))
    point = AmortisedHead(guide._features[0], 8, model, point=True)
    point.mean_head = guide.mean_head
    torch.testing.assert_close(predict(point, x, 1, model=model)[0], plain)


def test_predictions_average_probabilities() -> None:
    """T5: and not logits."""
    model = LatentHead(2, nn.Identity(), likelihoods.categorical)
    guide = AmortisedHead(nn.Identity(), 2, model, bounded=False)
    x = torch.randn(4, 2)
    pyro.set_rng_seed(0)
    p = predictive(guide, x, 50, model=model)
    pyro.set_rng_seed(0)
    torch.testing.assert_close(p.probs, predict(guide, x, 50, model=model).softmax(-1).mean(0))
    logits = torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 3.0, 0.0]]])
    mean = likelihoods.categorical(logits).probs.mean(0)
    torch.testing.assert_close(mean, torch.tensor([[0.4161322715, 0.5079749887, 0.0758927398]]))


def test_one_draw_is_unbiased_for_many() -> None:
    """T4: E over z of softmax(decode z), by a grid over a single entry of z."""
    model = LatentHead(1, 2, likelihoods.categorical)
    guide, x = AmortisedHead(nn.Identity(), 1, model), torch.ones(1, 1)
    loc, variance = guide.moments(x)
    assert variance is not None
    z = torch.linspace(-8, 8, 2001).unsqueeze(1)
    weights = Normal(loc, variance.sqrt()).log_prob(z).softmax(0)
    exact = (weights * model.decoder(z).softmax(-1)).sum(0).detach()
    assert_mean(predict(guide, x, 2000, model=model).softmax(-1)[:, 0], exact)


def test_outputs_of_a_linear_decoder_are_normal() -> None:
    """T6: E = A mu + b, Cov = A diag(s^2) A^T, against draws."""
    model, guide = made()
    x = torch.randn(2, 3)
    outputs = guide.output_distribution(x)
    draws = predict(guide, x, 3000, model=model)
    assert_mean(draws, outputs.mean)
    centred = draws - outputs.mean
    assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), outputs.covariance_matrix)
    other = AmortisedHead(nn.Identity(), 3, LatentHead(2, nn.Tanh(), likelihoods.categorical))
    with pytest.raises(TypeError, match="linear decoder"):
        other.output_distribution(x)


@pytest.mark.parametrize("kl_weight", [None, 1.0, 0.3])
def test_elbo_is_the_published_loss(kl_weight: float | None) -> None:
    """T8: on fixed noise, ELBO / n = mean cross-entropy + kl_weight mean KL, by
    ours and both of Pyro's.
    """
    model, guide = made(kl_weight=kl_weight)
    x, y = data()
    pyro.set_rng_seed(3)
    loss = MeanFieldELBO()(model, guide)(x, y)
    gradient = torch.autograd.grad(loss, guide.mean_head[0].weight)[0]
    pyro.set_rng_seed(3)
    mean_field = TraceMeanField_ELBO().differentiable_loss(model, guide, x, y)
    loc, variance = guide.moments(x)
    assert variance is not None
    pyro.set_rng_seed(3)
    z = loc + variance.sqrt() * torch.randn(N, LATENT)
    kl = 0.5 * (variance + loc**2 - 1 - variance.log()).sum(1)
    weight = 1 / LATENT if kl_weight is None else kl_weight
    published = F.cross_entropy(model.decoder(z), y) + weight * kl.mean()
    torch.testing.assert_close(loss / 60, published)
    torch.testing.assert_close(mean_field / 60, published)
    torch.testing.assert_close(gradient / 60, torch.autograd.grad(published, guide.mean_head[0].weight)[0])
    traced = torch.stack([Trace_ELBO().differentiable_loss(model, guide, x, y) for _ in range(200)])
    closed = torch.stack([MeanFieldELBO()(model, guide)(x, y) for _ in range(200)])
    assert_mean((traced - closed).detach(), torch.zeros(()))


def test_tst_has_no_prior_term() -> None:
    model, guide = made(kl_weight=0.0, point=True)
    x, y = data()
    expected = 60 * F.cross_entropy(model.decoder(guide.mean_head(guide.phi(x))), y)
    torch.testing.assert_close(MeanFieldELBO()(model, guide)(x, y), expected)
    torch.testing.assert_close(torch.as_tensor(Trace_ELBO().loss(model, guide, x, y)), expected.detach())
