"""Tables of the study: one for each question, and all numbers as comma-separated values."""

from collections.abc import Mapping, Sequence

from bayesnn.transfer import LEVELS, Study

from examples.studies.common.matrix import cell
from examples.studies.common.scoring import to_markdown
from examples.studies.transfer_breast_cancer.described import cohorts, sources
from examples.studies.transfer_breast_cancer.methods import EXACT, RECAST
from examples.studies.transfer_breast_cancer.plan import FEW, QUESTIONS, Question

Column = tuple[str, str, float, int]
"""Its heading, metric, level, and decimal places."""
BINARY: Sequence[Column] = (
    ("AUC", "auc", 0.0, 3),
    ("log loss (nats)", "nll", 0.0, 3),
    ("Brier (both classes)", "brier", 0.0, 3),
    ("ECE", "ece", 0.0, 3),
    ("predicted − observed", "excess", 0.0, 3),
    ("Spiegelhalter z", "spiegelhalter_z", 0.0, 2),
    ("true labels at 95 %", "coverage", 0.95, 3),
    ("patients at 95 %", "confident", 0.95, 1),
)
CONTINUOUS: Sequence[Column] = (
    ("covered 50 %", "coverage", 0.5, 3),
    ("80 %", "coverage", 0.8, 3),
    ("95 %", "coverage", 0.95, 3),
    ("length 80 %", "length", 0.8, 2),
    ("95 %", "length", 0.95, 2),
    ("interval score 95 %", "interval_score", 0.95, 2),
    ("CRPS", "crps", 0.0, 3),
    ("RMSE", "rmse", 0.0, 3),
    ("predicted − observed", "excess", 0.0, 3),
)
SHOWN: Mapping[bool, Sequence[tuple[str, str, float]]] = {
    True: (
        ("log loss (nats)", "nll", 0.0),
        ("ECE", "ece", 0.0),
        ("predicted − observed share of events", "excess", 0.0),
    ),
    False: (
        ("covered by 80 % intervals", "coverage", 0.8),
        ("covered by 95 % intervals", "coverage", 0.95),
        ("CRPS", "crps", 0.0),
        ("predicted median − observed, mean", "excess", 0.0),
    ),
}
"""{whether binary: (caption, metric, level)} of the overview."""


def tables(studies: Mapping[str, Study]) -> dict[str, str]:
    """{file: Markdown}, and comma-separated values of everything as
    "transfer_breast_cancer.csv".
    """
    found = {"transfer_breast_cancer_cohorts.md": cohorts(), "transfer_breast_cancer_sources.md": sources()}
    for name, study in studies.items():
        question, file = QUESTIONS[name], f"transfer_breast_cancer_{name.replace('-', '_')}"
        found[f"{file}.md"] = f"{overview(question, study, name)}\n{against(question, study, name)}"
        found[f"{file}_full.md"] = scored(question, study, name)
        if not QUESTIONS[name].response.binary:
            found["transfer_breast_cancer_coverage.md"] = coverage(study, name)
    rows = [row for study in studies.values() for row in study.summary().rows]
    lines = [
        f'{design},"{method}",{metric},{level:g},{mean:.6g},{se:.3g},{n}'
        for design, method, metric, level, mean, se, n in rows
    ]
    found["transfer_breast_cancer.csv"] = "\n".join(["design,method,metric,level,mean,se,seeds", *lines]) + "\n"
    return found


def overview(question: Question, study: Study, name: str) -> str:
    """The metrics of `SHOWN`, a table each: a line for each method, a column for each size."""
    held = {row[:4]: row[4:6] for row in study.summary().rows}
    designs = _designs(study)
    methods = list(dict.fromkeys(method for of in designs.values() for method in of))
    header = ["method", *(f"n = {design.removeprefix(f'{name}-n')}" for design in designs)]
    parts = []
    for caption, metric, level in SHOWN[question.response.binary]:
        rows = [[m, *(_cell(held.get((design, m, metric, level)), 3) for design in designs)] for m in methods]
        rows = [row for row in rows if set(row[1:]) != {"–"}]
        parts.append(f"**{caption}**\n\n{to_markdown(header, rows)}")
    return "\n".join(parts)


def scored(question: Question, study: Study, name: str) -> str:
    """One line for each size and method; log loss or CRPS also minus that of
    the source alone on the same seeds.
    """
    columns = BINARY if question.response.binary else CONTINUOUS
    main = "nll" if question.response.binary else "crps"
    held = {row[:4]: row[4:] for row in study.summary().rows}
    header = ["n", "method", "seeds", *(heading for heading, *_ in columns)]
    place = [metric for _, metric, *_ in columns].index(main) + 4
    header.insert(place, "− source only's")
    rows = []
    for design, methods in _designs(study).items():
        for method in methods:
            cells = [_cell(held.get((design, method, metric, level)), digits) for _, metric, level, digits in columns]
            cells.insert(place - 3, _difference(study, design, method, "source only", main))
            rows.append(
                [design.removeprefix(f"{name}-n"), method, str(held[design, method, "seconds", 0.0][2]), *cells]
            )
    return f"**{question.title}**\n\n{to_markdown(header, rows)}"


def against(question: Question, study: Study, name: str) -> str:
    """RECaST minus its rivals on the same seeds, whether the source harms, and
    how many k-hats are too large.
    """
    main = "nll" if question.response.binary else "crps"
    verdicts = {row[0]: row[-1] for row in study.negative_transfer(metric=main).rows}
    rivals = ["target only", "source only"]
    rivals += ["one temperature", "intercept and slope"] if question.response.binary else ["straight line"]
    if any(row[1] == EXACT for row in study.rows):
        rivals.append(EXACT)
    judged = [method for method in RECAST if len(study.where(method=method, metric="khat"))]
    header = ["n", *(f"RECaST − {rival}" for rival in rivals), "does the source harm?"]
    header += [f"k-hat ≥ 0.7, {method}" for method in judged]
    rows = []
    for design in _designs(study):
        differences = [_difference(study, design, "RECaST", rival, main) for rival in rivals]
        khats = [study.where(design=design, method=method, metric="khat").column("value") for method in judged]
        counts = [f"{sum(value >= 0.7 for value in values)} of {len(values)}" if values else "–" for values in khats]
        rows.append([design.removeprefix(f"{name}-n"), *differences, verdicts[design], *counts])
    unit = "log loss in nats" if question.response.binary else "CRPS"
    return f"Differences in {unit} on the same seeds, below zero in favour of RECaST:\n\n{to_markdown(header, rows)}"


def coverage(study: Study, name: str) -> str:
    """Every level, for the sizes of `FEW`."""
    held = {row[:4]: row[4:] for row in study.summary().rows}
    rows = []
    for design, methods in _designs(study).items():
        size = design.removeprefix(f"{name}-n")
        for method in methods if int(size) in FEW else []:
            cells = [_cell(held[design, method, "coverage", level], 3) for level in LEVELS]
            rows.append([size, method, *cells])
    return to_markdown(["n", "method", *(f"{level:.0%}" for level in LEVELS)], rows)


def _designs(study: Study) -> dict[str, list[str]]:
    """{design: its methods}, those of RECaST first."""
    found: dict[str, list[str]] = {}
    for design, method in dict.fromkeys(zip(study.column("design"), study.column("method"), strict=True)):
        found.setdefault(design, []).append(method)
    return {design: sorted(methods, key=lambda method: method not in RECAST) for design, methods in found.items()}


def _difference(study: Study, design: str, method: str, other: str, metric: str) -> str:
    if method == other:
        return ""
    try:
        one = Study(study.columns, study.where(design=design).rows)
        ((*_, mean, se, _),) = one.paired(method, other, metric).rows
    except ValueError:  # conformal has no CRPS
        return "–"
    return f"{mean:+.3f} ± {se:.3f}"


def _cell(found: Sequence[float] | None, digits: int) -> str:
    return "–" if found is None else cell(found[0], found[1], digits)
