"""Numbers of one predictor: known shapes, the same under noise, and scenes with a shape that
training never saw.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesnn import metrics

from examples.studies.segmentation.methods import SIZE, Predictor, Trained
from examples.studies.segmentation.scenes import CLASSES, UNSEEN, Scenes, scenes

PIXELS = 20_000
"""For ECE and disagreement: those of one image are much alike, and more would not tell more."""

NOISE = 0.2
SHOWN = 4
"""Scenes of the figure."""

Maps = dict[str, Any]
"""{"predicted", "entropy", "information": nested lists [image, size, size]} of
the scenes of the figure.
"""


@dataclass(frozen=True)
class Judged:
    """What every predictor is asked: three sets of one size, and which pixels are drawn."""

    known: Scenes
    noisy: Scenes
    unseen: Scenes
    pixels: Tensor


def questions(seed: int, images: int) -> Judged:
    """Scenes of other seeds than those of training."""
    known, noisy = (scenes(images, seed=1000 * seed + 2, noise=noise, size=SIZE) for noise in (0.05, NOISE))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(known.y.numel(), generator=generator)[:PIXELS]
    return Judged(known, noisy, scenes(images, seed=1000 * seed + 3, unseen=True, size=SIZE), chosen)


def numbers(trained: Trained, asked: Judged) -> dict[str, Any]:
    """{column: number}, and the maps of the figure."""
    start = time.process_time()
    p = probabilities(trained.predictor, asked.known.x)
    seconds = time.process_time() - start
    row: dict[str, Any] = quality(p, asked.known.y, asked.pixels)
    row |= {f"noisy_{key}": value for key, value in _asked(trained, asked.noisy, asked.pixels).items()}
    draws = probabilities(trained.predictor, asked.unseen.x)
    row |= detection(draws, asked.unseen.y)
    row |= {"parameters": trained.parameters, "seconds": trained.seconds, "predict_seconds": seconds}
    return row | {"chosen": trained.chosen, "layers": trained.layers, "maps": maps(draws[:, :SHOWN])}


def _asked(trained: Trained, asked: Scenes, pixels: Tensor) -> dict[str, float]:
    return quality(probabilities(trained.predictor, asked.x), asked.y, pixels)


@torch.no_grad()
def probabilities(predictor: Predictor, x: Tensor) -> Tensor:
    """[draw, image, size, size, class], nowhere 0: one network may be so sure of a wrong class
    that its NLL is not finite."""
    p = predictor(x).clamp(min=1e-12)
    return p / p.sum(-1, keepdim=True)


def quality(draws: Tensor, y: Tensor, pixels: Tensor) -> dict[str, float]:
    """mIoU, and what a pixel's prediction is worth, for known classes."""
    p, labels = draws.mean(0).flatten(0, 2), y.flatten()
    each = metrics.disagreement(draws.flatten(1, 3)[:, pixels]) if len(draws) > 1 else torch.zeros(1)
    return {
        "miou": float(iou(p.argmax(-1), labels, p.shape[-1]).mean()),
        "accuracy": metrics.accuracy(p, labels).value,
        "nll": metrics.nll(p, labels).value,
        "ece": metrics.ece(p[pixels], labels[pixels], resamples=0).value,
        "confidence": float(p.amax(-1).mean()),
        "disagreement": float(each.mean()),
    }


def iou(predicted: Tensor, labels: Tensor, classes: int = len(CLASSES)) -> Tensor:
    """[class]: |predicted and labelled| / |predicted or labelled|, over the
    pixels of all images together.
    """
    counts = torch.bincount(classes * labels.flatten() + predicted.flatten(), minlength=classes**2)
    both = counts.view(classes, classes).double()
    return both.diag() / (both.sum(0) + both.sum(1) - both.diag())


def detection(draws: Tensor, y: Tensor) -> dict[str, float]:
    """How well scores tell pixels of the unseen shape (positive) from all others, and from those
    of known shapes.
    """
    p, unseen = draws.mean(0), y == UNSEEN
    known = (y > 0) & ~unseen
    scores = {"max": 1 - p.amax(-1), "entropy": metrics.entropy(p)}
    if len(draws) > 1:
        scores["information"] = metrics.mutual_information(draws)
    row = {"share": float(unseen.double().mean())}
    for name, score in scores.items():
        pair = score[~unseen], score[unseen]
        row[f"auroc_{name}"] = metrics.auroc(*pair).value
        row[f"aupr_{name}"] = metrics.aupr(*pair, resamples=0).value
        row[f"fpr95_{name}"] = metrics.fpr95(*pair, resamples=0).value
        row[f"objects_{name}"] = metrics.auroc(score[known], score[unseen]).value
    return row


def maps(draws: Tensor) -> Maps:
    """Three digits are enough for a picture."""
    p = draws.mean(0)
    found = {"predicted": p.argmax(-1), "entropy": metrics.entropy(p)}
    found["information"] = metrics.mutual_information(draws)
    return {name: torch.round(value.double(), decimals=3).tolist() for name, value in found.items()}
