"""The study in two pictures: recurrence by two sources, and oestrogen receptors."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from bayesnn.transfer import Study

from examples.studies.common.curves import curves
from examples.studies.transfer_breast_cancer.plan import QUESTIONS

SHARED = ("source only", "target only", "last-layer Laplace", "fine-tuned", "pooled ridge")
RECURRENCE = ("RECaST", "RECaST, narrow priors", "intercept and slope", *SHARED)
RECEPTORS = ("RECaST", "RECaST, centred", "straight line", *SHARED)
LOG_LOSSES = 0.55, 0.85
"""Fine-tuning goes beyond with few patients."""
TITLES = {"all": "source: all of Rotterdam", "node-negative": "source: node-negative patients"}


def draw(studies: Mapping[str, Study]) -> dict[str, Figure]:
    """{file: figure}, of the questions that were asked."""
    asked = {name: title for name, title in TITLES.items() if name in studies}
    found = {}
    if asked:
        together = Study(
            next(iter(studies.values())).columns, tuple(row for name in asked for row in studies[name].rows)
        )
        found["transfer_breast_cancer.png"] = curves(
            together,
            {title: _designs(name, studies[name]) for name, title in asked.items()},
            [("nll", 0.0, "log loss (nats)"), ("ece", 0.0, "ECE")],
            methods=RECURRENCE,
        )
        found["transfer_breast_cancer.png"].axes[0].set_ylim(*LOG_LOSSES)
    if "receptors" in studies:
        found["transfer_breast_cancer_receptors.png"] = curves(
            studies["receptors"],
            {"log(1 + ER)": _designs("receptors", studies["receptors"])},
            [("crps", 0.0, "CRPS"), ("coverage", 0.8, "covered by 80 %")],
            methods=RECEPTORS,
        )
        found["transfer_breast_cancer_receptors.png"].axes[0].set_yscale("linear")
    return found


def _designs(name: str, study: Study) -> dict[int, str]:
    """{target patients: design} of those that were run."""
    present = set(study.column("design"))
    return {n: design for n in QUESTIONS[name].sizes if (design := f"{name}-n{n}") in present}
