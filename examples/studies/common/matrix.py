"""One metric of a transfer study: a row for each design, a column for each method."""

from collections.abc import Sequence

from bayesnn.transfer import Study


def matrix(
    study: Study, metric: str, level: float = 0.0, *, designs: Sequence[str], methods: Sequence[str], places: int = 3
) -> str:
    """Markdown with "mean ± standard error" in each cell; a dash where a metric does not exist."""
    held = {row[:2]: (row[4], row[5]) for row in study.summary().where(metric=metric, level=level).rows}
    lines = ["| design | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for design in designs:
        cells = [cell(*held[design, method], places) if (design, method) in held else "–" for method in methods]
        lines.append(f"| {design} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(mean: float, se: float, places: int = 3) -> str:
    """The error is left out where there is none: one seed, or an infinite value."""
    return f"{mean:.3g}" if se != se else f"{mean:.{places}f} ± {se:.{places}f}"
