"""A saved Laplace approximation: two lines bring it back, its prior and noise
included, and no other takes it.
"""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from laplace_problems import TARGETS
from nets import mlp
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import Diagonal, Full, Hessian, Kronecker, Laplace, LowRank, train_online
from bayesnn.guides.fisher import EmpiricalFisher
from bayesnn.guides.laplace.origin import fixed_digests, likelihood_facts
from bayesnn.guides.laplace.prior import normal_prior
from bayesnn.predict import gaussian

X = torch.randn(9, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
Y = torch.randn(9, 2, dtype=torch.double, generator=torch.Generator().manual_seed(1))
STRUCTURES: dict[str, Any] = {
    "full": Full,
    "kronecker": Kronecker,
    "diagonal": Diagonal,
    "low rank": partial(LowRank, rank=5),
    "hessian": Hessian,
}


def regression(likelihood: Any = None, prior: Any = None, *, weights: str = "2") -> BNN:
    torch.manual_seed(0)  # the same network each time
    net = mlp(outputs=2).double()
    return BNN(net, subset.named(net, weights), prior or priors.normal(0.7), likelihood or likelihoods.normal(0.5))


def reloaded(guide: Laplace, into: Laplace, path: Path) -> Laplace:
    torch.save(guide.state_dict(), path / "state.pt")
    into.load_state_dict(torch.load(path / "state.pt", weights_only=True))
    return into


def assert_same(found: Laplace, guide: Laplace) -> None:
    torch.testing.assert_close(found.covariance, guide.covariance, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.log_evidence(), guide.log_evidence(), rtol=1e-12, atol=0)
    for ours, theirs in zip(normal_prior(found.model), normal_prior(guide.model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    ours, theirs = (gaussian(g.model.likelihood, g.output_distribution(X)) for g in (found, guide))
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_the_fitted_prior_and_noise_come_back(kind: str, tmp_path: Path) -> None:
    structure = STRUCTURES[kind]
    model = regression()
    guide = Laplace(model, structure=structure).fit([(X, Y)]).maximise_evidence(fit_noise=True)
    found = reloaded(guide, Laplace(model, structure=structure), tmp_path)
    assert found.model.likelihood.scale == guide.model.likelihood.scale != 0.5
    assert_same(found, guide)
    again = reloaded(found, Laplace(model, structure=structure), tmp_path)
    assert_same(again, guide)
    torch.testing.assert_close(found.maximise_evidence().log_evidence(), guide.maximise_evidence().log_evidence())


@pytest.mark.parametrize("per", ["network", "block", "weight"])
def test_a_prior_with_many_scales_comes_back(per: Any, tmp_path: Path) -> None:
    prior = priors.rescaled(priors.normal(0.7), 0.8)
    model = regression(prior=prior, weights="0")
    guide = Laplace(model).fit([(X, Y)]).maximise_evidence(per=per)
    found = reloaded(guide, Laplace(model), tmp_path)
    assert_same(found, guide)
    assert model.prior is prior
    other = reloaded(guide, Laplace(regression(prior=priors.normal(3.0), weights="0")), tmp_path)
    assert_same(other, guide)


@pytest.mark.parametrize("scale", [0.4, torch.tensor([0.4, 0.9]).double(), learned(0.4), learned([0.4, 0.9])], ids=str)
def test_noises_of_every_kind_come_back(scale: Any, tmp_path: Path) -> None:
    guide = Laplace(regression(likelihoods.normal(scale))).fit([(X, Y)]).maximise_evidence(fit_noise=True)
    for start in (likelihoods.normal(copy.deepcopy(scale)), likelihoods.normal(2.0), likelihoods.normal(learned(2.0))):
        found = reloaded(guide, Laplace(regression(start)), tmp_path)
        assert_same(found, guide)
        assert type(found.model.likelihood.scale) in {type(start.scale), Tensor}


def test_a_learned_noise_comes_back_as_it_was_at_the_fit(tmp_path: Path) -> None:
    noise = learned(0.4)
    model = regression(likelihoods.normal(noise))
    guide = Laplace(model).fit([(X, Y)])
    expected = guide.covariance
    with torch.no_grad():
        noise.log_value.fill_(2.0)
    found = reloaded(guide, Laplace(model), tmp_path)
    torch.testing.assert_close(found.covariance, expected)
    assert found.model.likelihood.scale().item() == pytest.approx(0.4)
    # the guide takes another module
    assert noise().item() == pytest.approx(torch.tensor(2.0).exp().item())


def test_training_online_comes_back(tmp_path: Path) -> None:
    model = regression()
    guide = train_online(model, [(X, Y)], epochs=6, every_epochs=2, fit_noise=True, progress=False)
    assert_same(reloaded(guide, Laplace(model, structure=Kronecker), tmp_path), guide)


def exponential(outputs: Tensor) -> dist.TorchDistribution:
    return dist.Exponential(outputs.exp()).to_event(1)


def scaled(outputs: Tensor, scale: float) -> dist.TorchDistribution:
    return dist.Normal(outputs, scale).to_event(1)


OTHERS = {
    "poisson": likelihoods.poisson,
    "student_t": likelihoods.student_t(4.0, 0.5),
    "a function": exponential,
    "a partial": partial(scaled, scale=0.5),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_likelihood_is_refused(kind: str) -> None:
    guide = Laplace(regression()).fit([(X, Y)])
    other = Laplace(regression(OTHERS[kind]), structure=Full, fisher=EmpiricalFisher())
    with pytest.raises(ValueError, match=r"fitted under the likelihood Normal\(scale=0\.5\), but that of the model is"):
        other.load_state_dict(guide.state_dict())
    with pytest.raises(ValueError, match=r"call fit\(loader\) first"):
        other.fitted


def test_other_numbers_of_a_likelihood_are_refused() -> None:
    guide = Laplace(regression(likelihoods.student_t(4.0, 0.5))).fit([(X, Y)])
    same = Laplace(regression(likelihoods.student_t(4.0, 0.5)))
    same.load_state_dict(guide.state_dict())
    with pytest.raises(ValueError, match=r"StudentT\(df=4\.0, scale=0\.5\).*StudentT\(df=4\.0, scale=0\.6\)"):
        Laplace(regression(likelihoods.student_t(4.0, 0.6))).load_state_dict(guide.state_dict())


def test_what_a_likelihood_is_known_by() -> None:
    assert likelihood_facts(exponential) == {"family": f"{__name__}.exponential", "numbers": {}}
    assert likelihood_facts(partial(scaled, scale=0.5)) == {"family": f"{__name__}.scaled", "numbers": {"scale": 0.5}}
    fixed, trained = (likelihood_facts(likelihoods.normal(s)) for s in (0.25, learned(0.25)))
    assert fixed == trained == {"family": "bayesnn.likelihoods.real.Normal", "numbers": {"scale": 0.25}}

    class Own(nn.Linear):
        threshold = 1.0

    facts = likelihood_facts(Own(1, 1))
    assert facts["numbers"].keys() == {"in_features", "out_features", "weight", "bias"}


def deep(seed: int, steps: int) -> nn.Module:
    """The problem in which the counters of BatchNorm are far larger than all weights."""
    torch.manual_seed(seed)
    layers = [m for i in range(3) for m in (nn.Conv2d(4 if i else 1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(steps)
            module.running_var.uniform_(0.5, 2)
    return net


def test_other_fixed_weights_are_refused_whatever_the_counters_say() -> None:
    first, second = deep(0, 100_000), deep(1, 100_000)
    second[-1].load_state_dict(first[-1].state_dict())
    guides = [
        Laplace(BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.categorical))
        for net in (first, second)
    ]
    guides[0].fit([(torch.randn(7, 1, 5, 5), TARGETS["categorical"]())])
    with pytest.raises(ValueError, match=r"other fixed weights.*\('0\.weight' differs\)"):
        guides[1].load_state_dict(guides[0].state_dict())
    second.load_state_dict(first.state_dict())
    second[1].num_batches_tracked += 1  # no prediction depends on it
    guides[1].load_state_dict(guides[0].state_dict())
    second[1].running_var[2] *= 1 + 1e-6
    with pytest.raises(ValueError, match=r"'1\.running_var' differs"):
        guides[1].load_state_dict(guides[0].state_dict())


def test_digests_are_of_what_is_not_random() -> None:
    net = mlp(outputs=3)
    some = subset.Subset(subset.everything(net).shape, {"0.weight": torch.tensor([1, 5]), "2.bias": None})
    model = BNN(net, some, priors.normal(1.0), likelihoods.categorical)
    digests = fixed_digests(model)
    assert list(digests) == ["0.weight", "0.bias", "2.weight"]
    with torch.no_grad():
        net[0].weight.view(-1)[5] += 1.0
        net[2].bias += 1.0
    assert fixed_digests(model) == digests
    with torch.no_grad():
        net[0].weight.view(-1)[4] += 1e-6
    assert [name for name, digest in fixed_digests(model).items() if digest != digests[name]] == ["0.weight"]
    double = copy.deepcopy(net).double()
    assert fixed_digests(BNN(double, some, priors.normal(1.0), likelihoods.categorical)) == fixed_digests(model)


@pytest.mark.gpu
def test_a_state_of_another_device_loads(tmp_path: Path) -> None:
    model = regression()
    guide = Laplace(model).fit([(X, Y)]).maximise_evidence(fit_noise=True)
    there = copy.deepcopy(model.net).cuda()
    other = Laplace(BNN(there, model.subset, model.prior, likelihoods.normal(0.5)))
    reloaded(guide, other, tmp_path)
    assert other.covariance.is_cuda
    torch.testing.assert_close(other.covariance.cpu(), guide.covariance)
    back = reloaded(other, Laplace(model), tmp_path)
    torch.testing.assert_close(back.covariance, guide.covariance)
