"""One split: every method with its own settings, judged in the targets' own
unit; kept, so that a study goes on.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bayesnn import metrics
from bayesnn.data import auto_mpg, boston_housing
from bayesnn.predict import PredictiveDistribution

from examples.studies.common import kept
from examples.studies.uci_regression.methods import METHODS, Settings, choose, predict
from examples.studies.uci_regression.problem import Data, folds
from examples.studies.uci_regression.recipe import Recipe

SETS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"boston": boston_housing, "auto-mpg": auto_mpg}
FOLDS = 10
NOMINAL = 0.9
SAMPLES = 1000

Run = dict[str, dict[str, Any]]
"""One split: {method: {quantity: number, "settings": those chosen}}."""


def complete(found: Run, name: str, split: int, recipe: Recipe) -> None:
    """Add the methods that a split of a data set lacks."""
    data = Data(*SETS[name]())
    repeat, fold = divmod(split, FOLDS)
    learned, left = folds(len(data.x), count=FOLDS, seed=repeat)[fold]
    train, test = data.rows(learned), data.rows(left)
    for method in METHODS:
        if method.name in found:
            continue
        began = time.process_time()
        own = replace(recipe, heads=method.heads)
        given: Settings = found[method.given]["settings"] if method.given else {}
        settings = choose(method, given, train, own, split)
        p, at, unit = predict(method, settings, train, test, own, split)
        seconds = time.process_time() - began
        found[method.name] = {**scores(p, at.y, unit), "seconds": seconds, "settings": dict(settings)}


def scores(p: PredictiveDistribution, y: Tensor, unit: float) -> dict[str, float]:
    """Means over the test examples; `unit` is that of y, and densities, errors
    and widths are per original unit.
    """
    low, high = p.interval(NOMINAL)
    low, high, y_flat = low.squeeze(1), high.squeeze(1), y.squeeze(1)
    return {
        "log_likelihood": float(p.log_prob(y).double().mean()) - math.log(unit),
        "rmse": float(metrics.rmse(p.mean.squeeze(1), y_flat)) * unit,
        "crps": float(metrics.crps(p.sample((SAMPLES,)).squeeze(2), y_flat)) * unit,
        "coverage": float(metrics.coverage(low, high, y_flat)),
        "width": float(metrics.width(low, high)) * unit,
    }


def resumed(folder: Path, name: str, split: int, recipe: Recipe) -> Run:
    """A split's numbers; those of methods that are not in the folder are made and put there."""
    file = folder / f"{name}_{split}.json"
    found: Run = kept.read(file) or {}
    complete(found, name, split, recipe)
    kept.write(file, found)
    return found


def column(runs: Sequence[Run], method: str, quantity: str, *, minus: str = "") -> list[float]:
    """A number of every split, or its difference to that of another method on the same split."""
    values = [float(run[method][quantity]) for run in runs]
    if not minus:
        return values
    return [value - float(run[minus][quantity]) for value, run in zip(values, runs, strict=True)]
