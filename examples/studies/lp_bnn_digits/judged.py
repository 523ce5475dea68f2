"""Numbers of one predictor: test set, letters, and digits under noise and
turned, five severities each.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesnn import data, metrics

from examples.studies.common.datasets import LETTERS, Sets
from examples.studies.common.predictors import Predictor
from examples.studies.lp_bnn_digits.trained import Trained, root_mean_square

SHIFTED = 500
"""Images at each severity."""

NOISE, DEGREES = (0.08, 0.12, 0.18, 0.26, 0.38), (15.0, 30.0, 45.0, 60.0, 75.0)
SHIFTS = ("noise", "rotation")


@dataclass(frozen=True)
class Judged:
    """What every predictor is asked."""

    x: Tensor
    y: Tensor
    letters: Tensor
    shifts: dict[str, list[Tensor]]


def questions(sets: Sets, seed: int) -> Judged:
    """Test images, letters, and the first test images at five severities of two shifts."""
    assert sets.test.y is not None
    some = sets.test.x[:SHIFTED]
    generator = torch.Generator().manual_seed(seed)
    shifts = {
        "noise": [data.noisy(some, scale, generator=generator) for scale in NOISE],
        "rotation": [data.rotated(some, degrees) for degrees in DEGREES],
    }
    return Judged(sets.test.x, sets.test.y, sets.outside[LETTERS].x, shifts)


def numbers(trained: Trained, asked: Judged) -> dict[str, Any]:
    """{column: number, or a list over severities or epochs}."""
    start = time.process_time()
    p = _probabilities(trained.predictor, asked.x)
    seconds = time.process_time() - start
    error = metrics.ece(p, asked.y)
    inside, outside = (metrics.entropy(q) for q in (p, _probabilities(trained.predictor, asked.letters)))
    row = {
        "accuracy": metrics.accuracy(p, asked.y).value,
        "nll": metrics.nll(p, asked.y).value,
        "ece": error.value,
        "ece_low": error.low,
        "ece_high": error.high,
        "ece_noise_floor": error.noise_floor,
        "confidence": float(p.amax(-1).mean()),
        "auroc": metrics.auroc(inside, outside).value,
        "fpr95": metrics.fpr95(inside, outside, resamples=0).value,
        "parameters": trained.parameters,
        "seconds": trained.seconds,
        "predict_seconds": seconds,
        "chosen": trained.chosen,
        "history": [_over_layers(epoch) for epoch in trained.history],
    }
    for kind in SHIFTS:
        y = asked.y[:SHIFTED]
        each = [_probabilities(trained.predictor, x) for x in asked.shifts[kind]]
        row[f"{kind}_accuracy"] = [metrics.accuracy(q, y).value for q in each]
        row[f"{kind}_nll"] = [metrics.nll(q, y).value for q in each]
        row[f"{kind}_ece"] = [metrics.ece(q, y, resamples=0).value for q in each]
    return row


@torch.no_grad()
def _probabilities(predictor: Predictor, x: Tensor) -> Tensor:
    # Never 0: a single network may be so sure of a wrong class that its NLL is infinite.
    p = torch.cat([predictor(part).mean(0) for part in x.split(500)]).double().clamp(min=1e-12)
    return p / p.sum(-1, keepdim=True)


def _over_layers(epoch: dict[str, Any]) -> dict[str, float]:
    spread = {key: root_mean_square(epoch[key]) for key in ("between", "within") if epoch[key]}
    return {"disagreement": epoch["disagreement"], **spread, "kl": sum(epoch.get("kl", []))}
