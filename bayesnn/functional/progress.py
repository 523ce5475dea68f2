"""The bar of everything that takes long."""

from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

DELAY = 2.0
"""Seconds after which a bar appears: shorter calls print nothing."""


def progress_bar(
    over: Iterable[Any] | None = None,
    *,
    desc: str,
    unit: str,
    show: bool,
    total: int | None = None,
    initial: int = 0,
) -> Any:
    """A tqdm bar that appears after two seconds, or never where `show` is False.

    Args:
        over: what to iterate; None for a bar that is updated by hand.
        desc: what is done, in a word.
        unit: what is counted.
        show: the caller's `progress`.
        total: how many there are; None where `over` says so, or nobody knows.
        initial: how many were done before.

    >>> list(progress_bar(range(3), desc="example", unit="step", show=True))
    [0, 1, 2]
    """
    return tqdm(over, desc=desc, unit=unit, total=total, initial=initial, disable=not show, delay=DELAY)
