"""Labels, and the entropies and information of `PredictiveDistribution`: against enumeration."""

import itertools
import math
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from statistical import assert_mean, bound
from torch import Tensor

from bayesnn.predict import PredictiveDistribution

DRAWS, BATCH = 5, 3
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(DRAWS, BATCH, 4, dtype=torch.double, generator=GENERATOR)


def entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-300).log()).sum(-1)


FAMILIES = {
    "logits": lambda: dist.Categorical(logits=LOGITS),
    "probs": lambda: dist.Categorical(LOGITS.softmax(-1)),
    "torch's": lambda: torch.distributions.Categorical(LOGITS.softmax(-1)),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_labels(kind: str) -> None:
    p, each = PredictiveDistribution(FAMILIES[kind]()), LOGITS.softmax(-1)
    torch.testing.assert_close(p.component_probs, each)
    torch.testing.assert_close(p.probs, each.mean(0))
    y = torch.tensor([3, 0, 1])
    torch.testing.assert_close(p.log_prob(y), each.mean(0)[range(3), y].log())
    torch.testing.assert_close(p.entropy(), entropy(each.mean(0)))
    torch.testing.assert_close(p.mutual_information(), entropy(each.mean(0)) - entropy(each).mean(0))
    drawn = p.sample((20_000,))
    assert_mean(torch.nn.functional.one_hot(drawn, 4).double(), p.probs)
    for name in ("mean", "variance"):
        with pytest.raises(NotImplementedError, match=r"labels have no .*; use probs"):
            getattr(p, name)
    with pytest.raises(NotImplementedError, match="labels have no order, so no cdf; use probs"):
        p.cdf(y)
    with pytest.raises(NotImplementedError, match="labels have no order"):
        p.icdf(0.5)


@pytest.mark.parametrize("event", [True, False])
def test_a_binary_target(event: bool) -> None:
    logits = LOGITS[..., :1] if event else LOGITS[..., 0]
    components = dist.Bernoulli(logits=logits)
    p = PredictiveDistribution(components.to_event(1) if event else components)
    q = logits.sigmoid()
    table = torch.stack([1 - q, q], -1)
    torch.testing.assert_close(p.component_probs, table)
    torch.testing.assert_close(p.mean, q.mean(0))
    torch.testing.assert_close(p.variance, q.mean(0) * (1 - q.mean(0)))
    flat = table.reshape(DRAWS, BATCH, 2)
    torch.testing.assert_close(p.entropy(), entropy(flat.mean(0)))
    torch.testing.assert_close(p.mutual_information(), entropy(flat.mean(0)) - entropy(flat).mean(0))
    with pytest.raises(NotImplementedError, match="labels have no order"):
        p.cdf(torch.zeros(p.batch_shape + p.event_shape))


def test_certain_classes_have_no_entropy() -> None:
    p = PredictiveDistribution(dist.Categorical(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])))
    assert p.entropy().tolist() == [0.0]
    assert p.mutual_information().tolist() == [0.0]
    opposed = PredictiveDistribution(dist.Categorical(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])))
    assert opposed.mutual_information().item() == pytest.approx(math.log(2))


def test_equal_draws_have_no_information() -> None:
    """Not even a negative one by rounding."""
    logits = torch.randn(1, 1000, 10).expand(7, 1000, 10)
    information = PredictiveDistribution(dist.Categorical(logits=logits)).mutual_information()
    assert (information >= 0).all()
    assert information.max() < 1e-5
    normal = PredictiveDistribution(dist.Normal(torch.zeros(7, 100), 1.0))
    assert normal.mutual_information().max() < 1e-5


COUNTS = torch.arange(60.0, dtype=torch.double)
MAPS = torch.tensor(list(itertools.product(range(2), repeat=4))).reshape(16, 2, 2)

# Components of event shapes other than one label, and all their values that matter:
# [value, *event].
ENUMERATED: dict[str, tuple[Any, Tensor]] = {
    "poisson": (dist.Poisson(LOGITS[..., :1].exp() * 3).to_event(1), COUNTS.unsqueeze(1)),
    "negative binomial": (
        dist.GammaPoisson(torch.full((DRAWS, BATCH, 1), 9.0).double(), 3 / LOGITS[..., :1].exp()).to_event(1),
        COUNTS.unsqueeze(1),
    ),
    "a map of pixels": (
        dist.Categorical(logits=LOGITS.reshape(DRAWS, BATCH, 2, 1, 2).expand(-1, -1, 2, 2, 2)).to_event(2),
        MAPS,
    ),
    "binary targets": (dist.Bernoulli(logits=2 * LOGITS).to_event(1), MAPS.reshape(16, 4).double()),
}


@pytest.mark.parametrize("kind", ENUMERATED)
def test_monte_carlo_agrees_with_enumeration(kind: str) -> None:
    components, values = ENUMERATED[kind]
    p, n = PredictiveDistribution(components), 4_000
    # [value, draw, batch]
    each = components.log_prob(values.reshape(len(values), 1, 1, *values.shape[1:]))
    log = each.logsumexp(1) - math.log(DRAWS)
    torch.testing.assert_close(log.exp().sum(0), torch.ones(BATCH).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(p.log_prob(values.unsqueeze(1).expand(-1, BATCH, *values.shape[1:])), log)
    ratio = each - log.unsqueeze(1)  # log p_s(y) - log p(y)
    for found, terms, weights in (
        (p.entropy(n), -log, log.exp()),
        (p.mutual_information(n), ratio.flatten(0, 1), (each.exp() / DRAWS).flatten(0, 1)),
    ):
        mean = (weights * terms).sum(0)
        deviation = ((weights * terms**2).sum(0) - mean**2).sqrt()
        assert found.shape == (BATCH,)
        assert ((found - mean).abs() < bound(2 * BATCH) * deviation / math.sqrt(n)).all()


def test_entropy_of_a_normal() -> None:
    p = PredictiveDistribution(dist.Normal(torch.zeros(1, 4), 2.0))
    exact, deviation = dist.Normal(0.0, 2.0).entropy(), math.sqrt(0.5)  # that of -log p(y)
    assert ((p.entropy(2_000) - exact).abs() < bound(4) * deviation / math.sqrt(2_000)).all()


def test_information_lies_between_nothing_and_the_draws() -> None:
    far = PredictiveDistribution(dist.Normal(1000 * torch.arange(6.0).reshape(6, 1), 1.0))
    assert far.mutual_information().item() == pytest.approx(math.log(6))
    near = PredictiveDistribution(dist.StudentT(3.0, 0.01 * torch.randn(6, 50), 1.0))
    information = near.mutual_information()
    assert (information >= 0).all()
    assert (information <= math.log(6)).all()


def test_other_families_have_no_class_probabilities() -> None:
    with pytest.raises(NotImplementedError, match="Normal has no class probabilities; use mean"):
        PredictiveDistribution(dist.Normal(torch.zeros(2, 3), 1.0)).probs
