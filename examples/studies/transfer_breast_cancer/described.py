"""Tables of what goes into the study: the cohorts, what censoring does to them,
and the sources.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesnn import metrics
from bayesnn.transfer.ridge import FREE, logistic_at

from examples.studies.common.scoring import to_markdown
from examples.studies.transfer_breast_cancer.cohorts import FEATURES, Cohort, gbsg, rotterdam
from examples.studies.transfer_breast_cancer.endpoint import happened, kaplan_meier, kept_with, known
from examples.studies.transfer_breast_cancer.response import RECEPTORS, RECURRENCE
from examples.studies.transfer_breast_cancer.source import Source, trained

STARTS = 5
"""Of the network that is the source."""


def cohorts() -> str:
    """Who is in them, what censoring does to the share of events, and what is done about it."""
    horizon = RECURRENCE.horizon
    columns = [("Rotterdam", rotterdam()), ("GBSG", gbsg())]
    rows: list[list[str]] = [["patients"], ["event within three years"], ["censored before, and left out"]]
    rows += [["share of events, Kaplan–Meier"], ["share of events, all whose state is known"]]
    rows += [["share of events, thinned"], ["patients expected after thinning"]]
    for _, cohort in columns:
        kept, one = kept_with(cohort.days, cohort.event, horizon), happened(cohort.days, cohort.event, horizon)
        seen = known(cohort.days, cohort.event, horizon)
        survival = kaplan_meier(cohort.days, cohort.event, torch.tensor([horizon]).double())
        numbers = [f"{len(cohort)}", f"{int(one.sum())}", f"{int((~seen).sum())}", f"{1 - float(survival):.3f}"]
        numbers += [
            f"{float(one[seen].mean()):.3f}",
            f"{float((kept * one).sum() / kept.sum()):.3f}",
            f"{float(kept.sum()):.0f}",
        ]
        for row, number in zip(rows, numbers, strict=True):
            row.append(number)
    for row in rows:
        row.append("")
    rows += [_means(name, [cohort for _, cohort in columns]) for name in FEATURES]
    header = ["", *(name for name, _ in columns), "GBSG, thinned"]
    return to_markdown(header, rows)


def _means(name: str, both: Sequence[Cohort]) -> list[str]:
    """Means of a feature, and in the thinned target: censoring should not have changed it."""
    values = [cohort.feature(name) for cohort in both]
    kept = kept_with(both[1].days, both[1].event, RECURRENCE.horizon)
    means = [*(float(value.mean()) for value in values), float((kept * values[1]).sum() / kept.sum())]
    return [f"mean of {name}", *(f"{mean:.2f}" for mean in means)]


def sources() -> str:
    """The sources on the validation part of Rotterdam."""
    rows = []
    for seed in range(STARTS):
        rows.append(
            [f"network, start {seed}{' (the source)' if not seed else ''}", *_judged(trained(RECURRENCE, seed=seed))]
        )
    rows.append(["network, node-negative patients", *_judged(trained(RECURRENCE, node_negative=True))])
    rows.append(["logistic regression", *_judged(trained(RECURRENCE, linear=True))])
    header = ["source of recurrence", "patients", "AUC", "log loss", "temperature", "Spiegelhalter z"]
    lines = [to_markdown(header, rows)]
    rows = [
        [f"network, start {seed}{' (the source)' if not seed else ''}", *_fitted(trained(RECEPTORS, seed=seed))]
        for seed in range(STARTS)
    ]
    rows.append(["least squares", *_fitted(trained(RECEPTORS, linear=True))])
    return "\n".join([*lines, to_markdown(["source of log(1 + ER)", "patients", "RMSE", "R²"], rows)])


def _judged(source: Source) -> list[str]:
    f, y = _held(source)
    p = torch.stack([(-f).sigmoid(), f.sigmoid()], 1)
    auc = metrics.auroc(f[y == 0], f[y == 1])
    inverse = logistic_at(f.unsqueeze(1), y, torch.ones(1).double(), torch.zeros_like(f), FREE)
    z = metrics.spiegelhalter(p, y.long()).z
    return [
        f"{len(source.y)}",
        f"{float(auc):.3f}",
        f"{float(metrics.nll(p, y.long())):.3f}",
        f"{1 / float(inverse):.2f}",
        f"{z:.2f}",
    ]


def _fitted(source: Source) -> list[str]:
    f, y = _held(source)
    error = (f - y).square().mean()
    return [f"{len(source.y)}", f"{float(error.sqrt()):.3f}", f"{1 - float(error / y.var(correction=0)):.3f}"]


def _held(source: Source) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return source.net(source.x[source.held]).squeeze(1), source.y[source.held]
