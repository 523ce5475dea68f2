"""What a fitted RECaST says, as statisticians print a fit: call, data, priors, posterior, notes in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.infer import MCMC
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor, nn

from bayesnn.arviz import pareto_smoothed
from bayesnn.functional import Inputs
from bayesnn.guides import CorrectedDraws
from bayesnn.handlers import prefix_of
from bayesnn.models.recast import CauchyEffect, RECaST
from bayesnn.transfer.table import Table

TRUSTED = 0.7
"""Largest k-hat."""
CONVERGED, ENOUGH = 1.01, 400
"""Largest R-hat, and least effective draws."""
AT_PRIOR, NEAR, FROM_ABOVE = 0.8, 0.5, 0.3
"""Of log gamma in prior standard deviations: a posterior as wide as this and as near is the prior; or is one-sided."""


@dataclass(frozen=True, eq=False)
class RECaSTSummary:
    """What `recast_summary` finds; `str` prints it.

    Attributes:
        blocks: {heading: lines} of call, data, source, priors and fit information.
        posterior: (quantity, mean, sd, 5%, 50%, 95%) and, where chains are there, ess and r_hat.
        notes: what to beware of, in words.
    """

    blocks: Mapping[str, tuple[str, ...]]
    posterior: Table
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Blocks under headings."""
        table = _aligned(self.posterior)
        parts = {**self.blocks}
        fit = parts.pop("Fit information")
        parts |= {"Posterior": tuple(table), "Fit information": fit, "Notes": tuple(f"- {note}" for note in self.notes)}
        shown = {heading: "\n".join(f"  {line}" for line in lines) for heading, lines in parts.items() if lines}
        return "\n\n".join(f"{heading}:\n{lines}" for heading, lines in shown.items())

    def to_dataframe(self) -> Any:
        """The posterior's table as a pandas `DataFrame`."""
        return self.posterior.to_dataframe()


def recast_summary(
    model: RECaST, posterior: CorrectedDraws | MCMC | Mapping[str, Tensor], x: Inputs, y: Tensor
) -> RECaSTSummary:
    """Posterior, how it was found, and what is not identified.

    gamma and sigma are printed beside their logarithms. "elpd_loo" is the expected log predictive density of a new
    target, summed over the examples, by Pareto-smoothed leave-one-out weights, in nats. The notes compare log gamma
    with its prior (where y is homoscedastic given f the data bound gamma from above only), say where delta is near zero
    or negative, and which k-hat, R-hat or effective sample sizes are bad.

    Args:
        model: of `recast.continuous` or `recast.binary`.
        posterior: `RECaSTGuide.corrected(x, y)`, an MCMC run such as `recast_nuts(model, x, y)`, or {site: draws}.
        x: inputs of the target's training examples.
        y: their targets [batch].

    Raises:
        TypeError: another model or posterior.
        ValueError: data that RECaST refuses, draws that lack a site.
        ImportError: ArviZ is not installed.

    Reference: Vehtari, Gelman, Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation
    and WAIC.

    >>> from bayesnn.guides import RECaSTGuide
    >>> from bayesnn.models import recast
    >>> f = torch.linspace(-2, 2, 40)
    >>> y = f + 0.1 * torch.sin(50 * f)
    >>> guide = RECaSTGuide(recast.continuous(None)).fit(f, y)
    >>> print(recast_summary(guide.model, guide.corrected(f, y, 200), f, y))
    Call:
      recast.continuous(source=None, effect=CauchyEffect())
    ...
    """
    if not isinstance(model, RECaST):
        raise TypeError(f"recast_summary: the model must be a RECaST, not a {type(model).__name__}")
    f = model.training_predictions(x)
    chains, how = _chains(posterior)
    prefix = prefix_of(model.name)
    lacking = [prefix + number for number in model.priors if prefix + number not in chains]
    if lacking:
        raise ValueError(f"recast_summary: the posterior has no draws of {lacking[0]!r}; is it of another model?")
    numbers = {number: chains[prefix + number].double() for number in model.priors}
    table = _table(numbers, chained=isinstance(posterior, MCMC))
    elpd, se, worst = _leave_one_out(model, {k: v.reshape(-1) for k, v in chains.items()}, f, y)
    kind, effect = "continuous" if model.noise else "binary", type(model.effect).__name__
    source = type(model.source).__name__ if model.source is not None else "None"
    blocks = {
        "Call": (f"recast.{kind}(source={source}, effect={effect}())",),
        "Data": (f"{len(f)} target examples, {_response(model, y)}",),
        "Source": _source(model, f),
        "Priors": tuple(f"{number} ~ {prior}" for number, prior in model.priors.items()),
        "Fit information": (*how, f"elpd_loo {elpd:.1f} nats (standard error {se:.1f}); largest k-hat {worst:.2f}"),
    }
    notes = [*_quality(posterior, table, worst), *_effect(model, numbers, f), *_transfer(numbers["delta"])]
    if model.noise and isinstance(model.effect, CauchyEffect):
        notes.append("Predictions have Cauchy tails: they have medians and quantiles, no mean or variance.")
    return RECaSTSummary(blocks, table, tuple(notes))


def _chains(posterior: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """{site: [chain, draw]} and how they were found."""
    if isinstance(posterior, MCMC):
        draws = {site: value.detach() for site, value in posterior.get_samples(group_by_chain=True).items()}
        chains, count = next(iter(draws.values())).shape[:2]
        return draws, (f"{type(posterior.kernel).__name__}, {chains} chain{'s' * (chains > 1)} of {count} draws",)
    if isinstance(posterior, CorrectedDraws):
        draws = {site: value.unsqueeze(0) for site, value in posterior.draws.items()}
        count = next(iter(draws.values())).shape[1]
        found = f"{count} importance-corrected draws of RECaSTGuide"
        return draws, (f"{found}: k-hat {posterior.khat:.2f}, {posterior.effective:.0f} effective proposals",)
    if isinstance(posterior, Mapping) and posterior:
        draws = {site: value.reshape(1, -1) for site, value in posterior.items()}
        return draws, (f"{next(iter(draws.values())).shape[1]} draws, of which nothing else is known",)
    raise TypeError(
        "recast_summary: the posterior is what RECaSTGuide.corrected(x, y) or recast_nuts(...) gives, or {site: "
        f"draws}}, not {type(posterior).__name__}"
    )


def _table(numbers: Mapping[str, Tensor], *, chained: bool) -> Table:
    rows = []
    derived = {number.removeprefix("log_"): value.exp() for number, value in numbers.items() if "log_" in number}
    for name, value in {**numbers, **derived}.items():
        flat = value.reshape(-1)
        quantiles = flat.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.double)).tolist()
        row = [name, float(flat.mean()), float(flat.std()), *quantiles]
        if chained:
            row += [float(effective_sample_size(value, 0, 1)), float(split_gelman_rubin(value, 0, 1))]
        rows.append(tuple(row))
    return Table(("quantity", "mean", "sd", "5%", "50%", "95%", *(("ess", "r_hat") if chained else ())), tuple(rows))


@torch.no_grad()
def _leave_one_out(model: RECaST, draws: Mapping[str, Tensor], f: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Sum and standard error of log p(y_i | the others), and the largest k-hat."""
    log_p = model.likelihood(model.outputs_at(draws, f)).log_prob(y.to(f))  # [draw, batch]
    weights, khats = zip(*(_weights(-one.numpy()) for one in log_p.T), strict=True)
    pointwise = (torch.as_tensor(np.stack(weights, 1)) + log_p).logsumexp(0)
    return float(pointwise.sum()), float(pointwise.std() * len(f) ** 0.5), max(khats)


def _weights(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """`pareto_smoothed`; weights that are all the same, of one draw for all, have no tail."""
    if np.ptp(log_weights) < 1e-12:
        return np.full(len(log_weights), -np.log(len(log_weights))), -np.inf
    return pareto_smoothed(log_weights)


def _response(model: RECaST, y: Tensor) -> str:
    if not model.noise:
        return f"a binary response, {int(y.sum())} of them one"
    mean, sd = float(y.double().mean()), float(y.double().std())
    return f"a real response of mean {mean:.3g} and standard deviation {sd:.3g}"


def _source(model: RECaST, f: Tensor) -> tuple[str, ...]:
    kind = "predictions given in the place of x" if model.source is None else f"{type(model.source).__name__}, frozen"
    if isinstance(model.source, nn.Module):
        kind += f", {sum(p.numel() for p in model.source.parameters())} weights"
    scale = "identity link" if model.noise else f"logits{'' if model.link is None else ' by link'}"
    return (f"{kind}; {scale}; f from {float(f.min()):.3g} to {float(f.max()):.3g}",)


def _quality(posterior: object, table: Table, worst: float) -> list[str]:
    notes = []
    if isinstance(posterior, CorrectedDraws) and posterior.khat >= TRUSTED:
        notes.append(f"k-hat is {posterior.khat:.2f}, above {TRUSTED}: do not trust these draws, use recast_nuts.")
    if isinstance(posterior, MCMC):
        r_hat, ess = max(table.column("r_hat")), min(table.column("ess"))
        if not r_hat <= CONVERGED:
            notes.append(f"R-hat reaches {r_hat:.3f}, above {CONVERGED}: run longer chains.")
        if not ess >= ENOUGH:
            notes.append(f"Only {ess:.0f} effective draws: quantiles are rough; run longer chains.")
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
    sigma = float(numbers["log_sigma"].median().exp()) if model.noise else 0.0
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


def _aligned(table: Table) -> list[str]:
    rows = ([f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in table.rows)
    cells = [list(table.columns), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
