"""RECaST with labels of several classes: two are the binary model, inference,
doors, what is refused.
"""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Predictive, Trace_ELBO
from statistical import bound
from torch import Tensor, nn

from bayesnn import metrics, predictive, to_arviz
from bayesnn.guides import RECaSTGuide, recast_nuts
from bayesnn.models import recast
from bayesnn.models.recast import CauchyEffect, NormalEffect, RECaST, StudentTEffect
from bayesnn.transfer import recast_summary


def at(delta: float, gamma: float) -> dict[str, Tensor]:
    return {"delta": torch.tensor(delta).double(), "log_gamma": torch.tensor(gamma).double().log()}


def simulated(n: int, classes: int = 3, *, delta: float = 0.9, gamma: float = 0.3) -> tuple[Tensor, Tensor]:
    """(logits, labels) from the model itself, by its random effects: not by its
    integrated likelihood.
    """
    logits = 2 * torch.randn(n, classes, dtype=torch.double)
    beta = delta + gamma * torch.empty(n, 1, dtype=torch.double).cauchy_()
    return logits, dist.Categorical(logits=beta * (logits - logits.mean(-1, keepdim=True))).sample()


@pytest.mark.parametrize("effect", [CauchyEffect(), NormalEffect(), StudentTEffect(4.0)])
def test_two_classes_are_binary(effect: recast.Effect) -> None:
    f, y = 3 * torch.randn(20).double(), torch.arange(20) % 2
    values = {"delta": torch.tensor([0.9, -0.2]).double(), "log_gamma": torch.tensor([-1.0, 1.0]).double()}
    two, one = recast.categorical(None, effect=effect), recast.binary(None, effect=effect)
    logits = torch.stack([1 - f / 2, 1 + f / 2], -1)  # not centred: the model does it
    expected = one.log_joint(values, one.predictions(f), y)
    torch.testing.assert_close(two.log_joint(values, two.predictions(logits), y), expected, rtol=0, atol=1e-7)


def test_golden() -> None:
    """The definition by 500,000 midpoints of the effect's distribution function."""
    u = (torch.arange(500_000).double() + 0.5) / 500_000
    beta = 0.9 + 0.3 * torch.tan(math.pi * (u - 0.5))
    c = torch.tensor([2.0, -1.0, 0.5, 0.5]).double()
    expected = (beta.unsqueeze(1) * c).softmax(-1).mean(0)
    model = recast.categorical(None)
    found = model.likelihood(model.outputs(at(0.9, 0.3), c.unsqueeze(0))).probs.squeeze(0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_parameters_are_recovered() -> None:
    """1,500 examples of three classes from the effects themselves: within the
    bound's standard errors.
    """
    guide = RECaSTGuide(recast.categorical(None)).fit(*simulated(1500), adapt=False)
    error = (guide.scale_tril @ guide.scale_tril.mT).diagonal().sqrt()
    truth = torch.tensor([0.9 / 1.3, math.log(0.3)]).double()  # in the guide's coordinates
    assert ((guide.loc - truth).abs() < bound(2) * error).all()
    assert (error < torch.tensor([0.05, 0.25])).all()


def test_inference_and_doors() -> None:
    """Guide, corrected draws, NUTS, the Pyro model, predictions, metrics, ArviZ
    and the summary.
    """
    logits, y = simulated(30)
    model = recast.categorical(None, name="r")
    values = {f"r.{site}": value for site, value in at(0.8, 0.2).items()}
    trace = pyro.poutine.trace(pyro.poutine.condition(model, data=values)).get_trace(logits, y)
    trace.compute_log_prob()
    torch.testing.assert_close(model.log_joint(values, model.predictions(logits), y), trace.log_prob_sum())
    generator = torch.Generator().manual_seed(0)
    guide = RECaSTGuide(model).fit(logits, y, generator=generator)
    posterior = guide.corrected(logits, y, 500, generator=generator)
    assert posterior.khat < 0.7
    chain = recast_nuts(model, logits, y, draws=60, warmup=40, chains=1, progress=False)
    for site in model.sites:
        spread = posterior.draws[site].std()
        difference = chain.get_samples()[site].mean() - posterior.draws[site].mean()
        assert difference.abs() < spread  # of a dozen effective draws
    p = predictive(posterior.draws, logits, 50, model=model)
    torch.testing.assert_close(p.probs.sum(-1), torch.ones(30).double())
    assert metrics.accuracy(p.probs, y).value > 0.5
    assert metrics.ece(p.probs, y).value < 0.4
    for parallel in (False, True):
        assert Predictive(model, guide=guide, num_samples=3, parallel=parallel)(logits)["r.y"].shape[0] == 3
    assert torch.isfinite(torch.as_tensor(Trace_ELBO().loss(model, guide, logits, y)))
    tree = to_arviz(posterior.draws, logits, y, model=model, draws=20)
    assert tree["log_likelihood"]["r.y"].shape == (1, 20, 30)
    text = str(recast_summary(posterior, logits, y, model=model))
    assert "recast.categorical" in text
    assert "of classes 0, 1" in text


def test_sources() -> None:
    """Logits of a network, log probabilities, and predictions that are known already."""
    net, x = nn.Linear(4, 3).eval().requires_grad_(requires_grad=False), torch.randn(20, 4)
    expected = recast.categorical(net).outputs(at(1.0, 0.1), x)
    assert expected.shape == (20, 5)
    linked = recast.categorical(lambda x: net(x).softmax(-1), link=torch.log).outputs(at(1.0, 0.1), x)
    torch.testing.assert_close(linked, expected, rtol=1e-4, atol=1e-5)
    model = recast.categorical(net)
    torch.testing.assert_close(model.of_predictions().outputs(at(1.0, 0.1), model.predictions(x)), expected)


@pytest.mark.parametrize(
    ("logits", "y", "text"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [0, 1], "2 target examples are too few"),
        ([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], [0, 1, 0], "predicts 0 on the link scale"),
        ([[1.0, 3.0], [0.0, 2.0], [5.0, 7.0]], [0, 1, 0], "predicts -1, 1 for every example"),
        ([[1.0], [2.0], [3.0]], [0, 0, 0], "one logit for each class"),
        ([1.0, 2.0, 3.0], [0, 0, 0], "one logit for each class"),
        ([[1.0, 3.0], [0.0, 1.0], [5.0, 7.0]], [0, 1, 2], "is 2, but the network has 2 outputs"),
    ],
)
def test_refusals(logits: list[list[float]], y: list[int], text: str) -> None:
    model: RECaST = recast.categorical(None)
    with pytest.raises(ValueError, match=text):
        model(torch.tensor(logits), torch.tensor(y))
    with pytest.raises(ValueError, match=text):
        RECaSTGuide(model).fit(torch.tensor(logits), torch.tensor(y))


def test_wrong_scales_and_targets() -> None:
    p, y = torch.randn(12, 3).softmax(-1), torch.arange(12) % 3
    with pytest.warns(UserWarning, match=r"looks like probabilities.*link=torch.log"):
        recast.categorical(None)(p, y)
    with pytest.raises(ValueError, match="give the source's logits"):
        recast.categorical(lambda x: x, link=torch.log).predictions(torch.tensor([[1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"y\.long"):
        recast.categorical(None)(3 * p.log(), y.float())
    with pytest.raises(ValueError, match="no prior of 'log_sigma'"):
        recast.categorical(None, priors={"log_sigma": dist.Normal(0.0, 1.0)})
