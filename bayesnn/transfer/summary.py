"""A summary of a fitted RECaST, in the form that statisticians print."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import MCMC
from torch import Tensor

from bayesnn.arviz import leave_one_out
from bayesnn.functional import Inputs
from bayesnn.guides.recast import CorrectedDraws
from bayesnn.models.recast import RECaST
from bayesnn.predict import PredictiveDistribution
from bayesnn.predict.ownership import model_for
from bayesnn.transfer.summary_notes import notes_of
from bayesnn.transfer.summary_tables import (
    chains_of,
    data_table,
    fit_rows,
    posterior_table,
    priors_table,
    source_line,
)
from bayesnn.transfer.table import Table


@dataclass(frozen=True, eq=False)
class RECaSTSummary:
    """The result of `recast_summary`, which `str` prints.

    Every table has `to_dataframe()`.

    Attributes:
        call: the model, as it was made.
        data: (quantity, value) of the target's examples.
        source: what the source is.
        priors: (quantity, prior, 5%, 50%, 95%).
        posterior: (quantity, mean, sd, 5%, 50%, 95%) and, of Markov chains, (mcse, ess_bulk,
            ess_tail, r_hat).
        fit: (quantity, value): the inference and how good it is; leave-one-out densities in nats.
        notes: what to beware of, in words.
    """

    call: str
    data: Table
    source: str
    priors: Table
    posterior: Table
    fit: Table
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Blocks under headings."""
        parts = {
            "Call": [self.call],
            "Data": _pairs(self.data),
            "Source": [self.source],
            "Priors": [f"{name} ~ {prior}" for name, prior, *_ in self.priors.rows],
            "Posterior": _aligned(self.posterior),
            "Fit information": _pairs(self.fit),
            "Notes": [f"- {note}" for note in self.notes],
        }
        shown = {heading: "\n".join(f"  {line}" for line in lines) for heading, lines in parts.items() if lines}
        return "\n\n".join(f"{heading}:\n{lines}" for heading, lines in shown.items())

    def to_dataframe(self) -> Any:
        """The table of the posterior as a pandas `DataFrame`."""
        return self.posterior.to_dataframe()


@torch.no_grad()
def recast_summary(
    posterior: CorrectedDraws | MCMC | Mapping[str, Tensor], x: Inputs, y: Tensor, *, model: RECaST | None = None
) -> RECaSTSummary:
    """Summarise the posterior, its fit, what is not identified, and whether the source helps.

    gamma and sigma are printed beside their logarithms. "elpd_loo" is the expected log predictive
    density of as many new targets, by Pareto-smoothed leave-one-out weights, in nats; beside it,
    its difference from that of one distribution for all targets that ignores x (Student-t, or
    shares of labels), exactly left out one by one. The notes compare log gamma with its prior
    (where y is homoscedastic given f the data bound gamma from above only), say where delta is
    near zero or negative, where the source is not shown to help, and which k-hat, R-hat, effective
    sample sizes or divergences are bad. Effective sample sizes and R-hat are ArviZ's,
    rank-normalised.

    Args:
        posterior: `RECaSTGuide.corrected(x, y)`, an MCMC run such as `recast_nuts(model, x, y)`,
            or {site: draws}.
        x: inputs of the target's training examples.
        y: their targets [batch].
        model: of `recast.continuous`, `recast.binary` or `recast.categorical`; by default the
            posterior's own, which a dict of draws does not know.

    Raises:
        TypeError: another kind of model or posterior; a posterior that does not know its model,
            and none is given.
        ValueError: a model other than the posterior's own; data that RECaST refuses; draws that
            lack a site.
        ImportError: ArviZ is not installed.

    Reference: Vehtari, Gelman, Gabry (2017), Practical Bayesian model evaluation using
    leave-one-out cross-validation and WAIC; Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021),
    Rank-normalization, folding, and localization: an improved R-hat.

    >>> from bayesnn.guides import RECaSTGuide
    >>> from bayesnn.models import recast
    >>> f = torch.linspace(-2, 2, 40)
    >>> y = f + 0.1 * torch.sin(50 * f)
    >>> guide = RECaSTGuide(recast.continuous(None)).fit(f, y)
    >>> print(recast_summary(guide.corrected(f, y, 200), f, y))
    Call:
      recast.continuous(source=None, effect=CauchyEffect())
    ...
    """
    model = model_for(posterior, model, "recast_summary", x)
    if not isinstance(model, RECaST):
        raise TypeError(f"recast_summary: the model must be a RECaST, not a {type(model).__name__}")
    f = model.training_predictions(x)
    y = model.checked_target(f, y)
    chains, inference = chains_of(posterior)
    lacking = [site for site in model.sites if site not in chains]
    if lacking:
        raise ValueError(f"recast_summary: the posterior has no draws of {lacking[0]!r}; is it of another model?")
    numbers = {number: chains[site].double() for number, site in zip(model.priors, model.number_sites, strict=True)}
    flat = {site: value.reshape(-1) for site, value in chains.items()}
    p = PredictiveDistribution(model.likelihood(model.outputs_at(flat, f)))
    table = posterior_table(numbers, chained=isinstance(posterior, MCMC))
    fit = Table(("quantity", "value"), (*inference, *fit_rows(model, leave_one_out(p, y), f, y)))
    source, effect = type(model.source).__name__ if model.source is not None else "None", type(model.effect).__name__
    return RECaSTSummary(
        f"recast.{model.response.name}(source={source}, effect={effect}())",
        data_table(model, f, y),
        source_line(model),
        priors_table(model),
        table,
        fit,
        notes_of(model, posterior, numbers, f, table, fit),
    )


def _pairs(table: Table) -> list[str]:
    return [f"{quantity}: {_text(value)}" for quantity, value in table.rows]


def _aligned(table: Table) -> list[str]:
    cells = [list(table.columns), *([_text(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]


def _text(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
