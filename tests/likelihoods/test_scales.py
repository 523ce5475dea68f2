"""Scales of likelihoods: moments of draws, latent scales that the draws must
have, and what is refused.
"""

from collections.abc import Callable

import pytest
import torch
from pyro import distributions as dist
from statistical import assert_mean
from tracing import trace_of

from bayesnn import likelihoods
from bayesnn.likelihoods import Likelihood
from bayesnn.models import likelihood_given

BATCH, DRAWS = 4, 3


half_cauchy, gamma = dist.HalfCauchy(1.0), dist.Gamma(2.0, 1.0)


MOMENTS: dict[str, tuple[Likelihood, Callable[[float], float], Callable[[float], float]]] = {
    "poisson": (likelihoods.poisson, lambda m: m, lambda m: m),
    "negative_binomial": (likelihoods.negative_binomial(3.0), lambda m: m, lambda m: m + m**2 / 3.0),
    "normal": (likelihoods.normal(0.5), lambda m: torch.tensor(m).log().item(), lambda m: 0.25),
    "student_t": (likelihoods.student_t(9.0, 0.5), lambda m: torch.tensor(m).log().item(), lambda m: 0.25 * 9 / 7),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_mean_and_variance_of_draws(name: str) -> None:
    likelihood, mean, variance = MOMENTS[name]
    m = 2.5
    y = likelihood(torch.full((20_000, 1), m).log()).sample()
    assert_mean(y, mean(m))
    assert_mean((y - mean(m)) ** 2, variance(m))


def test_a_site_that_the_draws_lack_is_an_error() -> None:
    likelihood = likelihoods.student_t(gamma, half_cauchy)
    outputs = torch.zeros(DRAWS, BATCH, 1)
    with pytest.raises(ValueError, match=r"latent site 'y_scale', which the draws lack; they have fc\.weight, y_df"):
        likelihood_given(likelihood, outputs, {"fc.weight": torch.zeros(DRAWS, 2), "y_df": torch.ones(DRAWS)})
    named = {"net.y_df": torch.ones(DRAWS), "net.y_scale": torch.ones(DRAWS)}
    assert likelihood_given(likelihood, outputs, named, name="net").batch_shape == (DRAWS, BATCH)
    with pytest.raises(ValueError, match=r"latent site 'other\.y_df'"):
        likelihood_given(likelihood, outputs, named, name="other")


def test_latent_scales_with_axes_of_their_own() -> None:
    """One latent scale for each output."""
    likelihood = likelihoods.normal(dist.HalfCauchy(torch.ones(2)))
    outputs, y = torch.zeros(DRAWS, BATCH, 2, dtype=torch.double), torch.ones(BATCH, 2, dtype=torch.double)
    scales = torch.rand(DRAWS, 2, dtype=torch.double) + 0.5
    log_prob = likelihood_given(likelihood, outputs, {"y_scale": scales}).log_prob(y)
    expected = dist.Normal(0.0, scales.unsqueeze(1)).log_prob(y).sum(-1)
    torch.testing.assert_close(log_prob, expected)
    trace = trace_of(likelihood, outputs[0])
    assert trace.nodes["y_scale"]["fn"].event_shape == (2,)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "normal": (lambda: likelihoods.normal(-0.1), "likelihoods.normal: scale must be positive and finite, not -0.1"),
    "student_t": (lambda: likelihoods.student_t(0.0), "likelihoods.student_t: df must be positive and finite, not 0.0"),
    "counts": (
        lambda: likelihoods.negative_binomial(float("nan")),
        "concentration must be positive and finite, not nan",
    ),
    "odd": (
        lambda: likelihoods.heteroscedastic(torch.zeros(4, 3)),
        r"two outputs for each target \(mean, log scale\), but it has 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()
