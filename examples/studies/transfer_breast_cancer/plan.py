"""What is asked of which source, with how many target patients, and how often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bayesnn.transfer import Method, Study, TransferData, transfer_study

from examples.studies.transfer_breast_cancer import methods
from examples.studies.transfer_breast_cancer.methods import EXACT, NARROW, NORMAL, RECAST
from examples.studies.transfer_breast_cancer.response import COMPLETE, RECEPTORS, RECURRENCE, Response
from examples.studies.transfer_breast_cancer.target import breast_cancer

SIZES = (20, 40, 60, 100, 250)
FEW = (20, 60, 250)


@dataclass(frozen=True)
class Question:
    """One source and one response.

    Attributes:
        title: of its table.
        response: what is predicted.
        sizes: target patients to learn from.
        linear, node_negative: of the source, see `trained`.
    """

    title: str
    response: Response = RECURRENCE
    sizes: tuple[int, ...] = SIZES
    linear: bool = False
    node_negative: bool = False

    def data(self, seed: int, *, n_train: int) -> TransferData:
        """The target sample of a seed."""
        return breast_cancer(
            seed,
            n_train=n_train,
            response=self.response,
            linear=self.linear,
            node_negative=self.node_negative,
        )

    @property
    def methods(self) -> Mapping[str, Method]:
        """All that its response allows."""
        return methods.BINARY if self.response.binary else methods.CONTINUOUS


QUESTIONS: Mapping[str, Question] = {
    "all": Question("Recurrence or death within three years; source: a network trained on all of Rotterdam"),
    "node-negative": Question(
        "The same; source: a network trained on the node-negative patients of Rotterdam alone", node_negative=True
    ),
    "linear": Question("The same; source: a logistic regression on all of Rotterdam", sizes=FEW, linear=True),
    "complete": Question(
        "The first source again, with all patients whose state at three years is known: too many events",
        response=COMPLETE,
        sizes=(60,),
    ),
    "receptors": Question("log(1 + ER); source: a network trained on all of Rotterdam", response=RECEPTORS),
}


SLOW: Mapping[str, tuple[int, ...]] = {EXACT: (20,), NORMAL: (20, 60)}
"""With a binary response: the sizes that are asked for."""
ASIDE: Mapping[str, tuple[str, ...]] = {
    "node-negative": (NORMAL,),
    "linear": (NORMAL, NARROW, EXACT),
    "complete": (NORMAL, NARROW, EXACT),
}
"""Variants of RECaST that a question is not asked of, to spare time."""


@dataclass(frozen=True)
class Budget:
    """Seeds of RECaST, of what takes ten seconds for one (`SLOW`), and of all
    methods but RECaST's.
    """

    recast: int = 20
    slow: int = 10
    others: int = 40
    sizes: tuple[int, ...] = SIZES


SMOKE = Budget(1, 0, 2, (20,))


def answered(name: str, budget: Budget, folder: Path, *, workers: int = 1) -> Study:
    """Every method of a question; seeds that have run are not run again."""
    question = QUESTIONS[name]
    sizes = tuple(size for size in question.sizes if size in budget.sizes) or question.sizes[:1]
    few = tuple(size for size in sizes if size in FEW)
    chosen = {method: of for method, of in question.methods.items() if method not in ASIDE.get(name, ())}
    slow = SLOW if question.response.binary else {}
    parts: list[tuple[Sequence[int], Mapping[str, Method], int]] = [
        (sizes, {m: of for m, of in chosen.items() if m != NARROW and m not in slow}, budget.recast),
        (few, {m: of for m, of in chosen.items() if m == NARROW}, budget.recast),
        (sizes, {m: of for m, of in chosen.items() if m not in RECAST}, budget.others),
        *((at, {m: chosen[m]}, budget.slow) for m, at in slow.items() if m in chosen),
    ]
    rows: dict[tuple[Any, ...], None] = {}
    for wanted, methods_of, seeds in parts:
        designs = {f"{name}-n{n}": partial(question.data, n_train=n) for n in wanted if n in sizes}
        if designs and methods_of and seeds:
            study = transfer_study(designs, methods_of, range(seeds), folder=folder, workers=workers)
            rows |= dict.fromkeys(study.rows)
    return Study(study.columns, tuple(rows))
