"""Tables of a transfer study: tidy rows, their means over seeds, paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

KEYS = ("design", "method", "seed", "metric", "level", "value")


@dataclass(frozen=True, eq=False)
class Table:
    """Rows under named columns.

    >>> print(Table(("a", "b"), ((1, 0.5), (2, 0.25))))
    | a | b |
    |---|---|
    | 1 | 0.5 |
    | 2 | 0.25 |
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """The table in Markdown."""
        lines = ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        return "\n".join(lines + ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in self.rows])

    def where(self, **wanted: Any) -> "Table":
        """The rows in which each column named has the value given.

        Raises:
            ValueError: a column that the table lacks.
        """
        unknown = sorted(wanted.keys() - set(self.columns))
        if unknown:
            raise ValueError(f"Table.where: no column {unknown[0]!r}; the columns are {', '.join(self.columns)}")
        places = {self.columns.index(name): value for name, value in wanted.items()}
        return type(self)(self.columns, tuple(r for r in self.rows if all(r[i] == v for i, v in places.items())))

    def column(self, name: str) -> list[Any]:
        """The values of one column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def to_dataframe(self) -> Any:
        """The table as a pandas `DataFrame`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe needs pandas: pip install 'bayesnn[all]'") from error
        return pandas.DataFrame(list(self.rows), columns=list(self.columns))


class Study(Table):
    """The result of `transfer_study`: tidy rows (design, method, seed, metric, level, value).

    Level is 0 for metrics without one.
    """

    def summary(self) -> Table:
        """Mean over seeds with its Monte-Carlo standard error sd / sqrt(seeds): (..., mean, se,
        seeds).

        The error is nan for one seed, and where a value is infinite.
        """
        groups: dict[tuple[Any, ...], list[float]] = {}
        for design, method, _, metric, level, value in self.rows:
            groups.setdefault((design, method, metric, level), []).append(value)
        rows = tuple((*key, *_mean(values), len(values)) for key, values in groups.items())
        return Table(("design", "method", "metric", "level", "mean", "se", "seeds"), rows)

    def paired(self, method: str, other: str, metric: str, *, level: float = 0.0) -> Table:
        """method - other on the same seeds, for each design: (design, metric, level, difference,
        se, seeds).

        Raises:
            ValueError: no seed has both.
        """
        values: dict[tuple[str, str], dict[int, float]] = {}
        for design, name, seed, row_metric, at, value in self.rows:
            if row_metric == metric and at == level:
                values.setdefault((design, name), {})[seed] = value
        rows = []
        for design in dict.fromkeys(self.column("design")):
            one, two = values.get((design, method), {}), values.get((design, other), {})
            differences = [one[seed] - two[seed] for seed in one if seed in two]
            if differences:
                rows.append((design, metric, level, *_mean(differences), len(differences)))
        if not rows:
            known = ", ".join(dict.fromkeys(self.column("method")))
            raise ValueError(
                f"Study.paired: no seed has {metric!r} at level {level:g} of both {method!r} and {other!r}; the "
                f"methods are {known}"
            )
        return Table(("design", "metric", "level", "difference", "se", "seeds"), tuple(rows))

    def negative_transfer(
        self, method: str = "RECaST", alone: str = "target only", *, metric: str = "", level: float = 0.0
    ) -> Table:
        """`paired`, with a verdict on whether the source harms.

        The metric must be one in which less is better.

        Args:
            method: with the source.
            alone: without it.
            metric: "crps" by default, or "nll" where there is none (binary responses).
            level: of the metric.

        Returns:
            (design, metric, level, difference, se, seeds, verdict): "transfer harms" and "transfer
            helps" beyond two standard errors, else "no difference shown".
        """
        metric = metric or ("crps" if "crps" in self.column("metric") else "nll")
        table = self.paired(method, alone, metric, level=level)
        return Table((*table.columns, "verdict"), tuple((*row, _verdict(row[3], row[4])) for row in table.rows))


def study_of(runs: Mapping[tuple[str, int], Mapping[str, Sequence[tuple[str, float, float]]]]) -> Study:
    """{(design, seed): {method: scores}} as tidy rows."""
    rows = [
        (design, method, seed, metric, level, value)
        for (design, seed), methods in runs.items()
        for method, triples in methods.items()
        for metric, level, value in triples
    ]
    return Study(KEYS, tuple(rows))


def _mean(values: list[float]) -> tuple[float, float]:
    held = torch.tensor(values, dtype=torch.double)
    if len(values) < 2 or not bool(held.isfinite().all()):
        return float(held.mean()), math.nan
    return float(held.mean()), float(held.std()) / math.sqrt(len(values))


def _verdict(difference: float, se: float) -> str:
    if not abs(difference) > 2 * se:
        return "no difference shown"
    return "transfer harms" if difference > 0 else "transfer helps"


def _text(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
