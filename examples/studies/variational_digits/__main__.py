"""Variational inference on digits, judged beside a network with validated weight decay and an
ensemble, by five seeds.

    python -m examples.studies.variational_digits --seeds 0 1 2 3 4 --out docs/tables

1,000 images of MNIST and a convolutional network of 314,506 weights. 800 of the images are learned
from, and the other 200 choose every hyper-parameter of every method: weight decay or prior scale,
the weight of the KL divergence, SWAG's learning rate, one temperature. 4,000 other images, letters
and turned digits only judge.

Writes variational_digits.md and variational_digits.png: means over seeds with standard errors,
paired differences to MAP, training costs as multiples of MAP's. About four minutes of CPU time a
seed on one core; what a seed gave is kept under --runs, so a stopped run goes on.
"""

import os
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset
from tqdm import tqdm

from bayesnn import metrics

from examples.studies.common import scoring, study
from examples.studies.common.datasets import LETTERS, ROTATED, Sets, load
from examples.studies.common.options import Options
from examples.studies.common.predictors import Predictor, cooled, log_losses, softmax
from examples.studies.common.scoring import Predictions
from examples.studies.common.temperature import TEMPERATURES
from examples.studies.common.training import Task, point
from examples.studies.variational_digits import report
from examples.studies.variational_digits.choice import Candidate, best, candidates
from examples.studies.variational_digits.methods import MAP, POINTS, POSTERIORS, RATES, Method, swag

SMOKE = bool(os.environ.get("SMOKE"))
EPOCHS, HELD = (2, 20) if SMOKE else (30, 200)
BINS = 10  # of the reliability curves


def tried(task: Task, held: tuple[Tensor, Tensor]) -> dict[str, list[Candidate]]:
    """{method: everything that was trained}."""
    found = {name: candidates(name, method, task, held) for name, method in POINTS.items()}
    start = best(found[MAP])
    net = point(task, start.setting)
    averaging = Method(partial(swag, net), [replace(start.setting, rate=rate) for rate in RATES])
    found["SWAG"] = [
        replace(one, seconds=one.seconds + start.seconds) for one in candidates("SWAG", averaging, task, held)
    ]
    return found | {name: candidates(name, method, task, held) for name, method in POSTERIORS.items()}


def ensemble(members: list[Predictor], x: Tensor) -> Tensor:
    """One draw a member."""
    return torch.cat([member(x) for member in members])


def predictors(task: Task, held: tuple[Tensor, Tensor], count: int) -> dict[str, tuple[Predictor, dict[str, Any]]]:
    """{method: (predictor, what was chosen and what it cost)}, MAP first."""
    found = tried(task, held)
    chosen = best(found[MAP])
    others = (point(replace(task, seed=task.seed + i), chosen.setting) for i in range(1, count))
    members: list[Predictor] = [chosen.predictor, *(partial(softmax, net) for net in others)]
    result: dict[str, tuple[Predictor, dict[str, Any]]] = {}
    for name, all_of_it in found.items():
        winner = best(all_of_it)
        for way, predictor in winner.ways.items():
            result[f"{name}, {way}" if way else name] = (predictor, _described(winner))
        if name in POINTS:
            result[f"{name}{report.COOLED}"] = _with_temperature(winner, held)
        if name == MAP:
            together = {**_described(winner), "seconds": count * winner.seconds}
            result[f"ensemble of {count}"] = (partial(ensemble, members), together)
        if name in POSTERIORS:
            bayes = best(all_of_it, lambda setting: setting.kl_weight == 1.0)
            result[f"{name}{report.BAYES}"] = (bayes.predictor, _described(bayes))
    return result


def _with_temperature(one: Candidate, held: tuple[Tensor, Tensor]) -> tuple[Predictor, dict[str, Any]]:
    """The temperature of the smallest loss on the held-out images."""
    at = {t: partial(cooled, one.predictor, t) for t in TEMPERATURES.tolist()}
    temperature = min(at, key=lambda t: float(log_losses(at[t], *held).mean()))
    return at[temperature], {**_described(one), "temperature": temperature}


def _described(one: Candidate) -> dict[str, Any]:
    setting = one.setting
    return {"gain": setting.gain, "kl_weight": setting.kl_weight, "rate": setting.rate, "seconds": one.seconds}


@torch.no_grad()
def everywhere(predictor: Predictor, sets: Sets) -> Predictions:
    """Probabilities of all sets, in parts that are large beside the drawing of 314,506 weights."""
    return {
        kind: torch.cat([predictor(part) for part in images.x.split(500)], dim=1)
        for kind, images in sets.everywhere.items()
    }


def one_seed(options: Options) -> dict[str, dict[str, Any]]:
    """{method: numbers}."""
    sets: Sets = load(options)
    sets = replace(sets, outside={kind: sets.outside[kind] for kind in (LETTERS, ROTATED)})
    x, y = sets.train.tensors
    task = Task(TensorDataset(x[HELD:], y[HELD:]), 100 * options.seed, EPOCHS)
    found: dict[str, Predictions] = {}
    extra: dict[str, dict[str, Any]] = {}
    described = predictors(task, (x[:HELD], y[:HELD]), options.members)
    for name, (predictor, numbers) in tqdm(described.items(), desc="predict", unit="method"):
        torch.manual_seed(options.seed)
        start = time.process_time()
        found[name] = everywhere(predictor, sets)
        extra[name] = {**numbers, "predict_seconds": time.process_time() - start, **_curve(found[name]["test"], sets)}
    return {name: {**row, **extra[name]} for name, row in scoring.as_numbers(scoring.score(found, sets)).items()}


def _curve(draws: Tensor, sets: Sets) -> dict[str, list[float]]:
    """The reliability curve, to be pooled over seeds."""
    assert sets.test.y is not None
    bins = metrics.calibration_bins(draws.mean(0), sets.test.y.cpu(), bins=BINS)
    return {f"bin_{part}": getattr(bins, part).nan_to_num().tolist() for part in ("count", "confidence", "accuracy")}


def main() -> None:
    """Every seed that has not run yet, then table and figure."""
    runs, out = study.each_seed(one_seed, "variational_digits", "Variational inference on digits, by several seeds.")
    markdown = report.to_markdown(runs)
    (out / "variational_digits.md").write_text(markdown, encoding="utf-8")
    report.figure(runs).savefig(study.pictures(out) / "variational_digits.png", dpi=130)
    print(markdown)


if __name__ == "__main__":
    main()
