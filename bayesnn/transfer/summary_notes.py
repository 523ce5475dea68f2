"""The notes of RECaST's summary, in words."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.infer import MCMC
from torch import Tensor

from bayesnn.guides.recast import CorrectedDraws
from bayesnn.models.recast import CauchyEffect, RECaST
from bayesnn.transfer.table import Table

TRUSTED = 0.7
"""Largest k-hat."""
CONVERGED, ENOUGH = 1.01, 400
"""Largest R-hat, and least effective draws."""
AT_PRIOR, NEAR, FROM_ABOVE = 0.8, 0.5, 0.3
"""Of log gamma in prior standard deviations: a posterior as wide as this and as near is the prior;
or is one-sided.
"""


def notes_of(
    model: RECaST, posterior: object, numbers: Mapping[str, Tensor], f: Tensor, table: Table, fit: Table
) -> tuple[str, ...]:
    """Notes on what to beware of.

    These are draws that cannot be trusted, a gamma that is not identified, a source that does not
    help.
    """
    fit_values = dict(zip(fit.column("quantity"), fit.column("value"), strict=True))
    notes = [*_quality(posterior, table, fit_values), *_effect(model, numbers, f), *_transfer(numbers["delta"])]
    difference, se = (
        fit_values["elpd_loo minus that without the source"],
        fit_values["standard error of the difference"],
    )
    notes += _without_source(difference, se)
    if model.with_noise and isinstance(model.effect, CauchyEffect):
        notes.append("Predictions have Cauchy tails: they have medians and quantiles, no mean or variance.")
    return tuple(notes)


def _quality(posterior: object, table: Table, fit: Mapping[str, Any]) -> list[str]:
    notes = []
    if isinstance(posterior, CorrectedDraws) and posterior.khat >= TRUSTED:
        notes.append(f"k-hat is {posterior.khat:.2f}, above {TRUSTED}: do not trust these draws, use recast_nuts.")
    if isinstance(posterior, MCMC) and "r_hat" in table.columns:
        r_hat, ess = max(table.column("r_hat")), min([*table.column("ess_bulk"), *table.column("ess_tail")])
        if not r_hat <= CONVERGED:
            notes.append(f"R-hat reaches {r_hat:.3f}, above {CONVERGED}: run longer chains.")
        if not ess >= ENOUGH:
            notes.append(f"Only {ess:.0f} effective draws: quantiles are rough; run longer chains.")
    if isinstance(posterior, MCMC) and posterior.num_chains == 1:
        notes.append("One chain only: R-hat compares its halves, and cannot see another mode; run several chains.")
    if fit.get("divergences"):
        notes.append(f"{fit['divergences']} trajectories diverged: a part of the posterior may be missed.")
    worst = fit["largest k-hat of an example"]
    if worst >= TRUSTED:
        notes.append(f"A target is so influential that elpd_loo cannot be trusted (k-hat {worst:.2f}).")
    return notes


def _effect(model: RECaST, numbers: Mapping[str, Tensor], f: Tensor) -> list[str]:
    """Is gamma identified? Its posterior beside its prior, in width and place."""
    prior, log_gamma = model.priors["log_gamma"], numbers["log_gamma"].reshape(-1)
    try:
        centre, spread = float(prior.mean), float(prior.stddev)
    except NotImplementedError:
        return []
    width, shift = float(log_gamma.std()) / spread, abs(float(log_gamma.mean()) - centre) / spread
    measured = f"log gamma has standard deviation {float(log_gamma.std()):.2g}, its prior {spread:.2g}"
    if width > AT_PRIOR and shift < NEAR:
        return [f"gamma is at its prior ({measured}): the data do not identify it."]
    if width <= FROM_ABOVE:
        return []
    upper = float(log_gamma.quantile(0.95).exp() * f.abs().median())
    sigma = float(numbers["log_sigma"].median().exp()) if model.with_noise else 0.0
    if upper < sigma:
        return [
            f"gamma is bounded from above only ({measured}): gamma |f| of a typical example is below {upper:.2g} with "
            f"probability 95%, where sigma is {sigma:.2g}; below that the prior decides. Do not interpret gamma."
        ]
    return [f"gamma is poorly identified ({measured}): do not interpret it."]


def _transfer(delta: Tensor) -> list[str]:
    low, high = delta.reshape(-1).quantile(torch.tensor([0.05, 0.95], dtype=torch.double)).tolist()
    if low < 0 < high:
        return [
            f"delta may be zero (90% interval {low:.2g} to {high:.2g}): the source may say nothing of this target. "
            "Compare with a model of the target alone."
        ]
    if high < 0:
        return [f"delta is negative (90% interval {low:.2g} to {high:.2g}): this target reverses the source."]
    return []


def _without_source(difference: float, se: float) -> list[str]:
    """Is the source of use at all? Beside the least that a target can do alone."""
    measured = f"elpd_loo differs by {difference:.1f} nats, standard error {se:.1f}"
    alone = "one distribution for all targets that ignores x"
    if difference < -2 * se:
        return [f"Negative transfer: {alone} predicts better than the source ({measured})."]
    if difference < 2 * se:
        return [f"The source is not shown to help: {alone} predicts as well ({measured})."]
    return []
