"""Entropy, mutual information and the law of total variance: closed forms,
bounds and identities.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayesnn import metrics

few = settings(max_examples=50, deadline=None, derandomize=True, database=None)


def draws(seed: int, shape: tuple[int, ...] = (6, 5, 4), scale: float = 3.0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=source, dtype=torch.float64)).softmax(-1)


def test_entropies_are_scipys_in_nats() -> None:
    from scipy.stats import entropy

    probs = draws(0)
    assert metrics.entropy(probs).numpy() == pytest.approx(entropy(probs.numpy(), axis=-1))
    assert float(metrics.entropy([[0.25] * 4])) == pytest.approx(math.log(4))
    assert metrics.entropy(torch.eye(3)).tolist() == [0, 0, 0]
    assert metrics.entropy(np.array([[1 + 1e-9, -1e-9]])).isfinite().all()  # rounding below zero


@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(0.1, 50))
@few
def test_bounds_and_the_additive_split(seed: int, count: int, scale: float) -> None:
    probs = draws(seed, (count, 7, 4), scale)
    total, aleatoric, epistemic = metrics.decompose_entropy(probs)
    assert torch.allclose(total, aleatoric + epistemic, atol=1e-12)
    assert torch.equal(epistemic, metrics.mutual_information(probs))
    assert bool((epistemic >= 0).all())
    assert bool((epistemic <= math.log(min(count, 4)) + 1e-12).all())
    assert bool((total <= math.log(4) + 1e-12).all())
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(metrics.mutual_information(probs[order]), epistemic, atol=1e-12)
    assert torch.allclose(metrics.mutual_information(probs[..., [2, 0, 3, 1]]), epistemic, atol=1e-12)


def test_mutual_information_is_a_mean_divergence_from_the_mean() -> None:
    probs = draws(1)
    mean = probs.mean(0)
    assert torch.allclose(metrics.mutual_information(probs), (probs * (probs / mean).log()).sum(-1).mean(0))
    assert metrics.mutual_information(draws(2)[:1]).max() < 1e-12  # one draw knows no disagreement
    maps = draws(3, (4, 2, 8, 9, 3))  # per pixel
    assert metrics.mutual_information(maps).shape == (2, 8, 9)


def test_few_draws_bias_the_mutual_information_low_as_documented() -> None:
    # 20,000 examples; the documented first-order bias is met within 4.9 standard errors and a
    # tenth of itself.
    base = draws(4, (1, 1, 3), 1.0)
    source = torch.Generator().manual_seed(5)
    many = (base.log() + 0.3 * torch.randn(64, 20_000, 3, generator=source)).softmax(-1)
    few_draws = metrics.mutual_information(many.view(16, 4, 20_000, 3).movedim(0, 1).reshape(4, -1, 3))
    exact = metrics.mutual_information(many.reshape(-1, 1, 3))
    bias = (many.reshape(-1, 3).var(0) / many.reshape(-1, 3).mean(0)).sum() / (2 * 4)
    se = float(few_draws.std()) / math.sqrt(len(few_draws))
    assert float(few_draws.mean() - exact) == pytest.approx(-float(bias), abs=4.9 * se + 0.1 * float(bias))


def test_total_variance_is_that_of_the_mixture() -> None:
    source = torch.Generator().manual_seed(6)
    means, variances = torch.randn(10, 3, generator=source).double(), torch.rand(10, 3, generator=source).double()
    total, aleatoric, epistemic = metrics.decompose_variance(means, variances)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(3, 10)),
        torch.distributions.Normal(means.T, variances.T.sqrt()),
    )
    assert torch.allclose(total, mixture.variance, atol=1e-6)
    assert torch.allclose(aleatoric, variances.mean(0))
    assert torch.allclose(epistemic, means.var(0, correction=0))
    assert torch.allclose(metrics.decompose_variance(means, 0.5).aleatoric, torch.full((3,), 0.5).double())


def test_dtype_and_gradients_follow_the_input() -> None:
    logits = torch.randn(3, 4, 5, requires_grad=True)
    value = metrics.mutual_information(logits.softmax(-1))
    assert value.dtype == torch.float32
    value.sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
