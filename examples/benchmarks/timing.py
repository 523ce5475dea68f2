"""Interleaved CPU times: what the benchmarks share."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

Action = Callable[[], object]


def options(description: str | None, table: str) -> argparse.Namespace:
    """`out` and `repeats` from the command line; one thread, and under SMOKE one repeat."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("docs/tables") / table, help="where the table goes")
    parser.add_argument("--repeats", type=int, default=25, help="interleaved rounds of a step; predictives get a third")
    given = parser.parse_args()
    if os.environ.get("SMOKE"):
        given.repeats = 1
    torch.set_num_threads(1)
    return given


def row(label: str, times: Mapping[str, list[float]], action: str, bound: str) -> tuple[str, ...]:
    """(label, median CPU time, ratio to the action "plain", bound)."""
    milliseconds = statistics.median(times[action]) * 1e3
    return (label, f"{milliseconds:.1f} ms", f"{ratio(times, action, 'plain'):.2f}", bound)


def interleaved(actions: Mapping[str, Action], repeats: int, label: str) -> dict[str, list[float]]:
    """CPU seconds of every action, in turn A B C A B C ..., after one call of
    each that is not counted.
    """
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in tqdm(range(repeats), desc=label):
        for name, action in actions.items():
            start = time.process_time()
            action()
            times[name].append(time.process_time() - start)
    return times


def ratio(times: Mapping[str, list[float]], name: str, reference: str) -> float:
    """The median over rounds of one action's time over the reference's in the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[reference], strict=True))


def markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write(path: Path, text: str) -> None:
    """Print a table and keep it."""
    print(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f"written to {path}")
