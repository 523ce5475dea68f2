"""The tables of RECaST's summary: data, priors, posterior, fit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pyro.infer import MCMC
from torch import Tensor, nn

from bayesnn.arviz import Groups, LeaveOneOut, from_groups
from bayesnn.guides.recast import CorrectedDraws
from bayesnn.models.recast import RECaST
from bayesnn.transfer.table import Table
from bayesnn.transfer.without_source import without_source

QUANTILES = (0.05, 0.5, 0.95)
FEWEST = 8
"""Draws of a chain below which there are no diagnostics."""

Row = tuple[Any, ...]


def chains_of(posterior: Any) -> tuple[dict[str, Tensor], list[Row]]:
    """{site: [chain, draw]} and the method that gave them, as rows (quantity, value)."""
    rows: list[Row]
    if isinstance(posterior, MCMC):
        draws = {site: value.detach() for site, value in posterior.get_samples(group_by_chain=True).items()}
        chains, count = next(iter(draws.values())).shape[:2]
        rows = [
            ("inference", f"{type(posterior.kernel).__name__}, {chains} chain{'s' * (chains > 1)} of {count} draws"),
            ("warm-up steps", int(posterior.warmup_steps)),
        ]
        if count >= FEWEST and "divergences" in (diagnostics := posterior.diagnostics()):
            rows.append(("divergences", sum(len(where) for where in diagnostics["divergences"].values())))
        return draws, rows
    if isinstance(posterior, CorrectedDraws):
        draws = {site: value.unsqueeze(0) for site, value in posterior.items()}
        count = next(iter(draws.values())).shape[1]
        rows = [
            ("inference", f"RECaSTGuide, {count} importance-corrected draws"),
            ("k-hat", float(posterior.khat)),
            ("effective proposals", round(posterior.effective)),
        ]
        if posterior.effective_sources != 1:
            rows.append(("effective draws of the source", float(posterior.effective_sources)))
        return draws, rows
    if isinstance(posterior, Mapping) and posterior:
        draws = {site: value.reshape(1, -1) for site, value in posterior.items()}
        count = next(iter(draws.values())).shape[1]
        return draws, [("inference", f"{count} draws, of which nothing else is known")]
    raise TypeError(
        "recast_summary: the posterior is what RECaSTGuide.corrected(x, y) or recast_nuts(...) gives, or {site: "
        f"draws}}, not {type(posterior).__name__}"
    )


def posterior_table(numbers: Mapping[str, Tensor], *, chained: bool) -> Table:
    """The table of numbers [chain, draw] and of the exponentials of their logarithms.

    It has the diagnostics of chains if there are any.
    """
    derived = {name.removeprefix("log_"): value.exp() for name, value in numbers.items() if "log_" in name}
    everything = {**numbers, **derived}
    levels = torch.tensor(QUANTILES, dtype=torch.double)
    rows = []
    for name, value in everything.items():
        flat = value.reshape(-1)
        rows.append((name, float(flat.mean()), float(flat.std()), *flat.quantile(levels).tolist()))
    columns: tuple[str, ...] = ("quantity", "mean", "sd", *(f"{level:.0%}" for level in QUANTILES))
    if chained and next(iter(everything.values())).shape[1] >= FEWEST:
        columns += ("mcse", "ess_bulk", "ess_tail", "r_hat")
        diagnostics = _diagnostics(everything)
        rows = [(*row, *diagnostics[row[0]]) for row in rows]
    return Table(columns, tuple(rows))


def data_table(model: RECaST, f: Tensor, y: Tensor) -> Table:
    """(quantity, value) of the target's examples and the source's predictions for them."""
    rows: list[Row] = [("target examples", len(f)), ("response", _response(model, y))]
    if model.response.name != "categorical":
        rows.append(("source's predictions f", f"from {float(f.min()):.3g} to {float(f.max()):.3g}"))
    if f.dim() == 1:
        pair = torch.stack([f, y.to(f)])
        rows.append(("correlation of f and y", float(pair.corrcoef()[0, 1])))
    return Table(("quantity", "value"), tuple(rows))


def priors_table(model: RECaST) -> Table:
    """(quantity, prior, 5%, 50%, 95%); nan where the family has no quantiles."""
    rows = [(number, str(prior), *_quantiles(prior)) for number, prior in model.priors.items()]
    return Table(("quantity", "prior", *(f"{level:.0%}" for level in QUANTILES)), tuple(rows))


def fit_rows(model: RECaST, loo: LeaveOneOut, f: Tensor, y: Tensor) -> list[Row]:
    """The leave-one-out log densities, with the source and without it."""
    classes = {"continuous": 0, "binary": 2}.get(model.response.name, f.shape[-1])
    difference = loo.log_density - without_source(y, classes=classes)
    return [
        ("elpd_loo", loo.elpd),
        ("standard error of elpd_loo", loo.standard_error),
        ("largest k-hat of an example", float(loo.khat.max())),
        ("elpd_loo minus that without the source", float(difference.sum())),
        ("standard error of the difference", float(difference.std() * len(f) ** 0.5)),
    ]


def source_line(model: RECaST) -> str:
    """A line that says what the source is, and on which scale it predicts."""
    kind = "predictions given in the place of x" if model.source is None else f"{type(model.source).__name__}, frozen"
    if isinstance(model.source, nn.Module):
        kind += f", {sum(p.numel() for p in model.source.parameters())} weights"
    elif model.source_count > 1:
        kind += f", {model.source_count} draws"
    scale = "identity link" if model.with_noise else f"logits{'' if model.link is None else ' by link'}"
    return f"{kind}; {scale}; its training data are not needed and were not seen"


def _diagnostics(values: Mapping[str, Tensor]) -> dict[str, tuple[float, ...]]:
    """{name: (mcse of the mean, bulk and tail effective sample size, rank-normalised split
    R-hat)}, by ArviZ.

    R-hat of a single chain compares its halves as if they were chains.
    """
    import arviz

    tree = _tree(values)
    half = {name: v[:, : v.shape[1] // 2 * 2].reshape(2, -1) if len(v) == 1 else v for name, v in values.items()}
    diagnostics = (
        arviz.mcse(tree),
        arviz.ess(tree, method="bulk"),
        arviz.ess(tree, method="tail"),
        arviz.rhat(_tree(half)),
    )
    parts = [getattr(part, "posterior", part) for part in diagnostics]  # a data set in ArviZ 0.x
    return {name: tuple(float(np.asarray(part[name])) for part in parts) for name in values}


def _tree(values: Mapping[str, Tensor]) -> Any:
    return from_groups(Groups({"posterior": {name: value.numpy() for name, value in values.items()}}))


def _quantiles(prior: Any) -> tuple[float, ...]:
    try:
        return tuple(float(prior.icdf(torch.tensor(level))) for level in QUANTILES)
    except NotImplementedError:
        return (float("nan"),) * len(QUANTILES)


def _response(model: RECaST, y: Tensor) -> str:
    if model.response.name == "continuous":
        mean, sd = float(y.double().mean()), float(y.double().std())
        return f"real, of mean {mean:.3g} and standard deviation {sd:.3g}"
    if model.response.name == "binary":
        return f"binary, {int(y.sum())} of them one"
    return f"labels, {', '.join(map(str, torch.bincount(y.long()).tolist()))} of classes 0, 1, ..."
