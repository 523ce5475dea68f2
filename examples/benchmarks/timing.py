"""Interleaved CPU times: what the benchmarks share."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm

Action = Callable[[], object]


def interleaved(actions: Mapping[str, Action], repeats: int, label: str) -> dict[str, list[float]]:
    """CPU seconds of every action, in turn A B C A B C ..., after one call of each that is not counted."""
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
