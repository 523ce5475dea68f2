"""A transfer study in one call: designs x methods x seeds to one tidy table, kept as it goes."""

import json
import logging
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TypeAlias

import torch

from bayesnn.transfer.baselines import conformal, recalibrated, source_only, target_only
from bayesnn.transfer.data import TransferData
from bayesnn.transfer.predictions import Prediction
from bayesnn.transfer.recalibration import recast
from bayesnn.transfer.scores import Score, scores
from bayesnn.transfer.table import Study, study_of

log = logging.getLogger(__name__)

Method: TypeAlias = Callable[[TransferData, int], Prediction]
"""(data, seed) -> a prediction for `data.x_test`: `Probabilities`, or anything with
`quantile(level)` and `notes`.
"""
MakeData: TypeAlias = Callable[[int], TransferData]
Run: TypeAlias = dict[str, list[Score]]

LEVELS = tuple(level / 100 for level in range(50, 100, 5))
METHODS: Mapping[str, Method] = {
    "RECaST": recast,
    "source only": source_only,
    "recalibrated": recalibrated,
    "conformal": conformal,
    "target only": target_only,
}
"""Those that any source allows, for real targets; `last_layer`, `last_layer_laplace` and
`fine_tuned` need the source's network, `pooled` its data; `conformal` refuses a binary response.
"""


def transfer_study(
    make_data: Mapping[str, MakeData],
    methods: Mapping[str, Method],
    seeds: Iterable[int],
    *,
    levels: Sequence[float] = LEVELS,
    folder: str | Path,
    workers: int = 1,
) -> Study:
    """Every method on every design and seed, scored: one row per (design, method, seed, metric,
    level, value).

    Each seed's numbers are written to `folder/design/seed_N.json`, at once and whole, so that a
    run that was killed goes on where it stopped: what the folder has is never done again, also not
    when methods or seeds are added. A file that cannot be read, as a full disk leaves it, counts
    as none, and a warning is logged. A name stands for its method: give a changed method another
    name, or another folder.

    Every method starts from random numbers set by the seed and its name, so that its numbers
    depend neither on the other methods nor on interruptions. Besides `scores` there is "seconds",
    CPU time.

    Args:
        make_data: {design: seed -> TransferData}.
        methods: {name: method}, such as `METHODS`.
        seeds: whole numbers.
        levels: of the intervals.
        folder: where the numbers are kept; made if need be.
        workers: processes. Above one, `make_data` and `methods` must be functions of modules (or
            `functools.partial` of them), and the calling script must have the usual
            `if __name__ == "__main__":`.

    Raises:
        ValueError: no design, method or seed; a design that is no file name; levels outside (0,
            1), or others than the folder's; functions that cannot be sent to processes.
        RuntimeError: a method or `make_data` failed; the message has design, seed and method,
            finished seeds are kept.

    >>> import tempfile
    >>> from functools import partial
    >>> from bayesnn.transfer import linear_design
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     designs = {"n=20": partial(linear_design, n_train=20, noise=0.0)}
    ...     study = transfer_study(designs, {"source only": source_only}, range(3), folder=folder)
    >>> len(study.where(metric="coverage", level=0.5)), study.columns[:3]
    (3, ('design', 'method', 'seed'))
    """
    wanted = list(dict.fromkeys(seeds))
    _check(make_data, methods, wanted, levels, workers)
    root, held = Path(folder), tuple(levels)
    tasks = [(root / design / f"seed_{seed}.json", design, seed) for seed in wanted for design in make_data]
    kept = {file: _kept(file, held) for file, *_ in tasks}
    left = [task for task in tasks if methods.keys() - kept[task[0]].keys()]
    if workers == 1 or len(left) < 2:
        for file, design, seed in left:
            _complete(file, kept[file], design, seed, make_data[design], methods, held)
    else:
        _in_processes(left, kept, make_data, methods, held, workers)
    runs = {(design, seed): _kept(file, held) for file, design, seed in tasks}
    return study_of({key: {name: run[name] for name in methods} for key, run in runs.items()})


def _complete(
    file: Path,
    kept: Run,
    design: str,
    seed: int,
    make: MakeData,
    methods: Mapping[str, Method],
    levels: tuple[float, ...],
) -> None:
    """Add the methods that a seed lacks, and write its file once all are done."""
    run, where = dict(kept), f"design {design!r}, seed {seed}"
    with torch.random.fork_rng(devices=[]):
        try:
            data = make(seed)
        except Exception as error:
            raise RuntimeError(f"transfer_study: {where}: the data could not be made: {error}") from error
        for name, method in methods.items():
            if name in run:
                continue
            torch.manual_seed(_mixed(seed, name))
            began = time.process_time()
            try:
                prediction = method(data, seed)
                seconds = time.process_time() - began
                run[name] = [*scores(prediction, data.y_test, levels), ("seconds", 0.0, seconds)]
            except Exception as error:
                raise RuntimeError(f"transfer_study: {where}, method {name!r}: {error}") from error
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(json.dumps({"levels": levels, "methods": run}), encoding="utf-8")
    beside.replace(file)


def _kept(file: Path, levels: tuple[float, ...]) -> Run:
    """The scores in a seed's file; none where there is no file, or a half-written one."""
    if not file.exists():
        return {}
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        theirs = tuple(held["levels"])
        kept = {name: [(metric, level, value) for metric, level, value in run] for name, run in held["methods"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # half a file, or no study's
        log.warning("transfer_study: %s cannot be read (%r); its seed is done again", file, error)
        return {}
    if theirs != levels:
        raise ValueError(
            f"transfer_study: {file} has the levels {held['levels']}, not {list(levels)}; give those, or another folder"
        )
    return kept


def _in_processes(
    left: list[tuple[Path, str, int]],
    kept: Mapping[Path, Run],
    make_data: Mapping[str, MakeData],
    methods: Mapping[str, Method],
    levels: tuple[float, ...],
    workers: int,
) -> None:
    try:
        pickle.dumps((dict(make_data), dict(methods)))
    except Exception as error:
        raise ValueError(
            f"transfer_study: with workers={workers}, make_data and methods must be functions of modules, or "
            f"functools.partial of them, no lambdas or inner functions ({error})"
        ) from error
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(left)), context, _one_thread) as pool:
        tasks = [
            pool.submit(_complete, file, kept[file], design, seed, make_data[design], dict(methods), levels)
            for file, design, seed in left
        ]
        try:
            for task in as_completed(tasks):
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    torch.set_num_threads(1)


def _mixed(seed: int, name: str) -> int:
    """A seed for (seed, name): the same in every process, unlike `hash`."""
    return int.from_bytes(f"{seed} {name}".encode()[:64], "big") % (2**63 - 25)


def _check(
    make_data: Mapping[str, MakeData],
    methods: Mapping[str, Method],
    seeds: list[int],
    levels: Sequence[float],
    workers: int,
) -> None:
    for what, given in (("design", make_data), ("method", methods), ("seed", seeds), ("level", levels)):
        if not given:
            raise ValueError(f"transfer_study: there is no {what}; give at least one")
    for design in make_data:
        if not design or design != Path(design).name or design.startswith("."):
            raise ValueError(
                f"transfer_study: the design {design!r} names a folder; use letters, digits, '=', '-', '_'"
            )
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"transfer_study: levels lie strictly between 0 and 1, not {list(levels)}")
    if workers < 1:
        raise ValueError(f"transfer_study: at least one process is needed, not {workers}")
