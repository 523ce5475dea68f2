"""The posterior interval of a probability: quantiles over draws, in closed form
where draws are ordered.
"""

import pytest
import torch
from pyro import distributions as dist

from bayesnn import metrics
from bayesnn.models import recast
from bayesnn.predict import PredictiveDistribution, predictive


def test_monotone_in_one_number() -> None:
    """Without a random effect P(y = 1) = expit(delta f): its quantiles are those of delta."""
    delta = torch.linspace(-1, 3, 101, dtype=torch.double)  # quantiles of 90 % are draws 5 and 95
    draws = {"delta": delta[torch.randperm(101)], "log_gamma": torch.full((101,), -40.0, dtype=torch.double)}
    f = torch.tensor([0.5, 2.0, -1.0], dtype=torch.double)
    p = predictive(draws, f, 101, model=recast.binary(None))
    low, high = p.probs_interval(0.9)
    assert low.shape == high.shape == (3, 2)
    ends = torch.stack([torch.sigmoid(delta[5] * f), torch.sigmoid(delta[95] * f)])
    torch.testing.assert_close(low[:, 1], ends.amin(0))
    torch.testing.assert_close(high[:, 1], ends.amax(0))
    torch.testing.assert_close(low[:, 0], 1 - high[:, 1])


@pytest.mark.parametrize("draws", [1, 2, 50])
def test_it_is_numpys_quantile(draws: int) -> None:
    probs = torch.rand(draws, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    probs = probs / probs.sum(-1, keepdim=True)
    low, high = PredictiveDistribution(dist.Categorical(probs)).probs_interval(0.8)
    torch.testing.assert_close(low, probs.quantile(0.1, 0))
    torch.testing.assert_close(high, probs.quantile(0.9, 0))
    if draws > 1:
        torch.testing.assert_close((low, high), metrics.central_interval(probs, level=0.8))


def test_what_is_refused() -> None:
    p = PredictiveDistribution(dist.Bernoulli(torch.full((5, 3), 0.5)))
    for level in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match="probs_interval: the level lies strictly between 0 and 1"):
            p.probs_interval(level)
    with pytest.raises(NotImplementedError, match="Normal has no class probabilities"):
        PredictiveDistribution(dist.Normal(torch.zeros(5, 3), 1.0)).probs_interval()
