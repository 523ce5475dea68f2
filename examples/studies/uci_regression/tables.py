"""Tables of a study: means over splits with standard errors, and differences to
MAP on the same split.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from examples.studies.common.scoring import to_markdown as table
from examples.studies.common.study import average
from examples.studies.uci_regression.methods import METHODS
from examples.studies.uci_regression.study import NOMINAL, Run, column

Runs = Mapping[str, Sequence[Run]]
"""{data set: its splits}."""

REFERENCE = METHODS[0].name
UNITS = {"boston": "1000 $", "auto-mpg": "miles per gallon"}
PLAIN = ("log_likelihood", "rmse", "crps", "coverage", "width", "seconds")
PAIRED = ("log_likelihood", "rmse", "crps")


def to_markdown(runs: Runs) -> str:
    """A table for each data set, then which settings were chosen."""
    parts = []
    for name, of in runs.items():
        unit = UNITS[name]
        header = ["method", "log p(y) (nats)", "- MAP's", "RMSE", "CRPS", "CRPS - MAP's"]
        header += [f"coverage of {NOMINAL:.0%} (%)", "width", "CPU (s)"]
        rows = [_row(of, method.name) for method in METHODS]
        parts.append(f"**{name}**, in {unit}; {len(of)} folds\n\n{table(header, rows)}")
    chosen = [[method.name, *(_chosen(of, method.name) for of in runs.values())] for method in METHODS]
    settings = table(["chosen within the training data", *runs], [row for row in chosen if any(row[1:])])
    note = (
        "± are standard errors over folds, of differences those of the paired differences. CPU: training, validation "
        "and prediction of one fold; that of a method which takes the settings of MAP has no validation of them.\n"
    )
    return "\n".join([*parts, note, settings])


def to_csv(runs: Runs) -> str:
    """Long lines: everything that was measured."""
    lines = ["data,method,quantity,mean,standard_error,splits"]
    for name, of in runs.items():
        for method in (one.name for one in METHODS):
            found = {quantity: column(of, method, quantity) for quantity in PLAIN}
            if method != REFERENCE:
                found |= {f"{quantity}_minus_map": column(of, method, quantity, minus=REFERENCE) for quantity in PAIRED}
            for quantity, values in found.items():
                value, error = average(values)
                lines.append(f'{name},"{method}",{quantity},{value:.6g},{error:.3g},{len(of)}')
    return "\n".join(lines) + "\n"


def _row(of: Sequence[Run], method: str) -> list[str]:
    def cell(quantity: str, places: int, *, times: float = 1.0, paired: bool = False) -> str:
        values = column(of, method, quantity, minus=REFERENCE if paired else "")
        value, error = average([times * one for one in values])
        return f"{value:{'+' if paired else ''}.{places}f} ± {error:.{places}f}"

    differs = method != REFERENCE
    cells = [method, cell("log_likelihood", 2), cell("log_likelihood", 2, paired=True) if differs else ""]
    cells += [cell("rmse", 2), cell("crps", 2), cell("crps", 3, paired=True) if differs else ""]
    cells += [cell("coverage", 1, times=100.0), f"{average(column(of, method, 'width'))[0]:.1f}"]
    return [*cells, f"{average(column(of, method, 'seconds'))[0]:.1f}"]


def _chosen(of: Sequence[Run], method: str) -> str:
    """How often each value of each setting was chosen, where there was a choice."""
    ours = next(one for one in METHODS if one.name == method)
    if len(ours.candidates) == 1:
        return ""
    words = []
    for setting in ours.candidates[0]:
        if len({one[setting] for one in ours.candidates}) > 1:
            counts = Counter(run[method]["settings"][setting] for run in of)
            values = ", ".join(f"{value:g} ({count})" for value, count in sorted(counts.items()))
            words.append(f"{setting.replace('_', ' ')} {values}")
    return "; ".join(words)
