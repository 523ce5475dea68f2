"""`LastLayerEvidence`, Fiedler and Lucia's loss, and the exact posterior that follows it."""

import io
import math
from functools import partial
from typing import Any

import pytest
import torch
from last_layer_problems import (
    EVIDENCE,
    PHI,
    Y,
    body,
    exact_posterior,
    given_features,
    golden,
    log_evidence,
    regression,
)
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import learned, likelihoods, to_arviz
from bayesnn.fit import fit
from bayesnn.guides import LastLayerEvidence, LastLayerPosterior
from bayesnn.models import GenerativeClassifier, NeuralLinear


def at(model: NeuralLinear, weight: Tensor) -> LastLayerEvidence:
    loss = LastLayerEvidence(model)
    with torch.no_grad():
        loss.weight.copy_(weight)
    return loss


GOLDEN = {"absolute": {}, "relative to the noise": {"scale": 8**0.5, "relative": True}}


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_values(kind: str) -> None:
    model = golden(**GOLDEN[kind])
    loc, _ = exact_posterior(model, PHI, Y)
    assert at(model, loc)(PHI, Y).item() == pytest.approx(-EVIDENCE, rel=1e-8)
    assert at(model, torch.tensor([[0.3, 0.9]]))(PHI, Y).item() == pytest.approx(4.4855036966, rel=1e-8)
    guide = LastLayerPosterior(model).fit([(PHI, Y)])
    assert guide.log_evidence().item() == pytest.approx(EVIDENCE, rel=1e-8)
    y = guide.target_distribution(torch.tensor([[1.0, 1.5]], dtype=torch.double))
    assert y.mean.item() == pytest.approx(1.7632653061, rel=1e-9)
    assert y.variance.item() == pytest.approx(0.3858754028, rel=1e-9)


@pytest.mark.parametrize("relative", [False, True])
def test_the_loss_is_the_papers_formula(relative: bool) -> None:
    """J of the paper, times the number of examples, where all outputs share alpha; elsewhere the
    sum over outputs.
    """
    model, x, y = regression(relative=relative)
    loss = LastLayerEvidence(model)
    with torch.no_grad():
        phi, noise, scale = model.phi(x), model.noise_scale(), model.matrix_prior().base_dist.scale[:, 0]
        m, n = phi.shape
        expected = 0.5 * m * 2 * math.log(2 * math.pi)
        for k in range(2):
            alpha = (scale[k] / noise[k]) ** 2
            bar = torch.eye(n).double() / alpha + phi.mT @ phi
            expected += 0.5 * torch.logdet(bar) + 0.5 * n * alpha.log() + m * noise[k].log()
            expected += (y[:, k] - phi @ loss.weight[k]).square().sum() / (2 * noise[k] ** 2)
            expected += loss.weight[k].square().sum() / (2 * scale[k] ** 2)
    assert loss(x, y).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("relative", [False, True])
def test_the_bound_and_its_gap(relative: bool) -> None:
    """J(w) = -log p(y) + (w - m)^T S^-1 (w - m) / 2, with the dense evidence of the examples."""
    model, x, y = regression(relative=relative)
    loc, covariance = exact_posterior(model, x, y)
    exact = -log_evidence(model, x, y)
    assert at(model, loc)(x, y).item() == pytest.approx(exact.item(), rel=1e-12)
    away = torch.randn(2, 5).double()
    gap = 0.5 * torch.einsum("ki,kij,kj->", away, torch.linalg.inv(covariance), away)
    assert at(model, loc + away)(x, y).item() == pytest.approx((exact + gap).item(), rel=1e-12)


@pytest.mark.parametrize("relative", [False, True])
def test_its_gradient_at_the_minimum_is_that_of_the_exact_evidence(relative: bool) -> None:
    model, x, y = regression(relative=relative)
    loss = at(model, exact_posterior(model, x, y)[0])
    own = list(model.parameters())
    assert len(own) == 6  # two layers of the body, the scale of the prior, the noise
    (weight, *found) = torch.autograd.grad(loss(x, y), [loss.weight, *own])
    assert weight.abs().max() < 1e-10
    for ours, exact in zip(found, torch.autograd.grad(-log_evidence(model, x, y), own), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-8, atol=1e-10)


def test_the_noise_prior_is_added() -> None:
    model, x, y = regression()
    with_prior, *_ = regression(noise_variance_prior=dist.InverseGamma(2.0, 0.1))
    weight = torch.zeros(2, 5)
    density = dist.InverseGamma(2.0, 0.1).log_prob(model.noise_scale() ** 2).sum()
    difference = at(with_prior, weight)(x, y) - at(model, weight)(x, y)
    assert difference.item() == pytest.approx(-density.item(), rel=1e-6)


def test_fit_trains_everything_to_the_optimum_of_the_exact_evidence(untouched: Any) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(40, 1, generator=generator, dtype=torch.double)
    y = torch.cat([(5 * x).sin(), x], 1) + torch.tensor([0.05, 0.2]) * torch.randn(40, 2, generator=generator).double()
    net = body(1, 3)
    noise = likelihoods.normal(learned(torch.tensor([0.5, 0.5])))
    model = NeuralLinear(net, 3, 2, noise, scale=learned(5.0), relative=True, size=40)
    loss = LastLayerEvidence(model)
    before = -log_evidence(model, x, y)
    optimizer = partial(torch.optim.Adam, lr=0.02)
    with untouched(net):
        fit(loss, [(x, y)], epochs=600, optimizer=optimizer, progress=False)
    exact = -log_evidence(model, x, y)
    assert exact < before - 30
    assert exact <= loss(x, y) < exact + 0.5
    noise_found = model.noise_scale()
    assert 0.03 < noise_found[0] < 0.08
    assert 0.13 < noise_found[1] < 0.3


def test_the_posterior_is_exact_and_updates_are_refits() -> None:
    model, x, y = regression()
    guide = LastLayerPosterior(model).fit([(x, y)])
    loc, covariance = exact_posterior(model, x, y)
    rows = guide.matrix_distribution().base_dist
    torch.testing.assert_close(rows.mean, loc)
    torch.testing.assert_close(rows.covariance_matrix, covariance)
    assert guide.log_evidence().item() == pytest.approx(log_evidence(model, x, y).item(), rel=1e-10)
    step = LastLayerPosterior(model).fit([(x[:5], y[:5])]).update([(x[5:7], y[5:7])]).update([(x[7:], y[7:])])
    for name, value in guide.named_buffers():
        torch.testing.assert_close(step.get_buffer(name), value)
    before = step.loc
    with pytest.raises(ValueError, match="y has shape"):
        step.update([(x, y), (x, y[:, 0])])
    assert step.loc is before  # nothing was added
    torch.testing.assert_close(step.gram, guide.gram)
    again = step.fit([(x[:5], y[:5])])
    torch.testing.assert_close(again.loc, exact_posterior(model, x[:5], y[:5])[0])


def test_one_step_predictions_multiply_to_the_evidence() -> None:
    model, x, y = regression()
    total, guide = torch.zeros(()).double(), LastLayerPosterior(model)
    for i in range(len(x)):
        if i:
            total += guide.target_distribution(x[i : i + 1]).log_prob(y[i : i + 1]).sum()
        guide.update([(x[i : i + 1], y[i : i + 1])])
        if not i:
            total += guide.log_evidence()
    assert total.item() == pytest.approx(guide.log_evidence().item(), rel=1e-10)


def slow_density(model: NeuralLinear, guide: LastLayerPosterior, x: Tensor, y: Tensor, alpha: float) -> float:
    """The paper's LPD, with the inverse of Lbar."""
    with torch.no_grad():
        phi, noise = model.phi(x), model.noise_scale()
        gram = guide.gram + torch.eye(phi.shape[1]).double() / alpha
        spread = 1 + torch.einsum("bi,ij,bj->b", phi, torch.linalg.inv(gram), phi)
        errors = (y - phi @ guide.loc.mT).square() / noise**2
        each = -y.shape[1] / 2 * spread.log() - 0.5 * (errors / spread.unsqueeze(-1)).sum(-1)
        return (each - 0.5 * (2 * math.pi * noise**2).log().sum()).sum().item()


def test_the_search_over_alpha_is_the_papers() -> None:
    model, x, y = regression(relative=True)
    guide = LastLayerPosterior(model).fit([(x, y)])
    far = 3 * x
    sure = guide.target_distribution(far)
    targets = sure.mean + 1.3 * sure.variance.sqrt()  # errors larger than predicted
    alpha = model.scale().item() ** 2
    wide = guide.maximise_predictive(far, targets, points=101)
    factors = [math.exp(i / 10) for i in range(101)]
    densities = [slow_density(model, guide, far, targets, alpha * f) for f in factors]
    best = factors[densities.index(max(densities))]
    assert 1 < best < math.e**10
    assert wide.model.scale.flatten()[0].item() == pytest.approx((alpha * best) ** 0.5, rel=1e-6)
    torch.testing.assert_close(wide.loc, guide.loc, rtol=0, atol=0)
    predicted = wide.target_distribution(far).log_prob(targets).sum().item()
    assert predicted == pytest.approx(max(densities), rel=1e-6)
    assert guide.target_distribution(far).log_prob(targets).sum().item() == pytest.approx(densities[0], rel=1e-6)
    # What the new model says of its covariance: that of a posterior under its own prior.
    refit = LastLayerPosterior(wide.model).fit([(x, y)])
    torch.testing.assert_close(refit.scale_tril, wide.scale_tril, rtol=1e-5, atol=1e-6)


def test_the_search_stops_where_the_precision_is_ill_conditioned_and_may_change_nothing() -> None:
    model, x, y = regression(relative=True)
    guide = LastLayerPosterior(model).fit([(x, y)])
    far, targets = 3 * x, y + 2.0
    stopped = guide.maximise_predictive(far, targets, condition=1.0)
    torch.testing.assert_close(stopped.scale_tril, guide.scale_tril)
    gram = guide.gram
    wide = guide.maximise_predictive(far, targets + 100, condition=50.0)
    alpha = float(wide.model.scale.flatten()[0]) ** 2
    values = torch.linalg.eigvalsh(gram + torch.eye(5).double() / alpha)
    assert 45 < values[-1] / values[0] <= 50
    inside = guide.target_distribution(x).mean
    # no error at all: the smallest variance is the best
    same = guide.maximise_predictive(x, inside)
    torch.testing.assert_close(same.scale_tril, guide.scale_tril)


def test_an_untied_scale_is_searched_too() -> None:
    model, x, y = regression()
    guide = LastLayerPosterior(model).fit([(x, y)])
    wide = guide.maximise_predictive(3 * x, y + 2.0)
    refit = LastLayerPosterior(wide.model).fit([(x, y)])
    torch.testing.assert_close(refit.scale_tril, wide.scale_tril, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"is of another model: its prior is .* leave out model="):
        to_arviz(wide, x, y, model=model, draws=2)
    assert to_arviz(wide, x, y, draws=2)["posterior"]["weight"].shape == (1, 2, 2, 5)
    better = wide.target_distribution(3 * x).log_prob(y + 2.0).sum()
    assert better > guide.target_distribution(3 * x).log_prob(y + 2.0).sum() + 1


def test_states_and_single_precision() -> None:
    model, x, y = regression()
    guide = LastLayerPosterior(model).fit([(x, y)])
    file = io.BytesIO()
    torch.save(guide.state_dict(), file)
    file.seek(0)
    other = LastLayerPosterior(model)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(other.update([(x, y)]).loc, guide.update([(x, y)]).loc)
    small = LastLayerPosterior(NeuralLinear(nn.Identity(), 3, 1, likelihoods.normal(1.0)))
    with pytest.raises(ValueError, match="LastLayerPosterior: this state belongs to another network"):
        small.load_state_dict(guide.state_dict())
    small.fit([(x.float(), y[:, :1].float())])
    assert small.loc.dtype == torch.float32
    assert small.gram.dtype == torch.double


def test_what_is_refused() -> None:
    model, x, y = regression(size=12)
    with pytest.raises(TypeError, match="LastLayerEvidence: a NeuralLinear is needed, not GenerativeClassifier"):
        LastLayerEvidence(GenerativeClassifier(body(), 4, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="LastLayerEvidence: a batch has 6 of 12 examples"):
        LastLayerEvidence(model)(x[:6], y[:6])
    with pytest.raises(ValueError, match=r"y has shape \(12,\), but the likelihood of these outputs needs \(12, 2\)"):
        LastLayerEvidence(model)(x, y[:, 0])
    for likelihood in (likelihoods.categorical, likelihoods.normal(dist.HalfCauchy(1.0))):
        with pytest.raises(ValueError, match="LastLayerPosterior: NeuralLinear: the noise has to be that of"):
            LastLayerPosterior(NeuralLinear(body(), 4, 2, likelihood))
    with pytest.raises(ValueError, match="LastLayerEvidence: the prior's scale is latent"):
        LastLayerEvidence(given_features(2, 1, likelihoods.normal(1.0), scale=dist.HalfCauchy(1.0)))
    guide = LastLayerPosterior(model)
    with pytest.raises(ValueError, match=r"LastLayerPosterior: call fit\(loader\) first"):
        guide.output_distribution(x)
    with pytest.raises(ValueError, match="LastLayerPosterior: the loader is empty"):
        guide.fit([])
