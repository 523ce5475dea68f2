"""RECaST's predictions for a binary response by quadrature over its two
numbers: what the guide is checked with.
"""

import math

import torch
from torch import Tensor

from bayesnn.models.recast import RECaST
from bayesnn.transfer import Prediction, Probabilities, TransferData
from bayesnn.transfer.recalibration import recast_model

RATIO = 1e-4
"""delta / (1 + gamma) = RATIO sinh(t): near zero where gamma is large, and up to some hundred
where it is small.
"""
COARSE, FINE = (161, 81), (201, 121)
"""Points of t and of log gamma."""
LEAST = 1e-7
"""Points of less than this share of the largest weight are left out."""


def exact_recast(data: TransferData, seed: int) -> Prediction:
    """P(y = 1) under the posterior of (delta, log gamma) on a grid; no draws, and no approximation
    but the grid's.

    A coarse grid finds where the posterior is, a fine one within that box gives the weights.

    Raises:
        ValueError: a response that is not binary.
    """
    if not data.binary:
        raise ValueError("exact_recast: it is for a binary response, with two numbers; a real one has three")
    model = recast_model(data).of_predictions()
    f, y = data.f_train, data.y_train.double()
    box = [(-math.asinh(300 / RATIO), math.asinh(300 / RATIO)), (-14.0, 14.0)]
    log_weights, points = _weights(model, f, y, box, COARSE)
    near = points[log_weights > log_weights.max() - 16]
    step = [(high - low) / (count - 1) for (low, high), count in zip(box, COARSE, strict=True)]
    box = [(float(near[:, i].min()) - step[i], float(near[:, i].max()) + step[i]) for i in range(2)]
    log_weights, points = _weights(model, f, y, box, FINE)
    weights = log_weights.softmax(0)
    kept = weights > LEAST * weights.max()
    total, f_test = torch.zeros(len(data.x_test), dtype=torch.double), data.f_test
    for part, weight in zip(points[kept].split(500), weights[kept].split(500), strict=True):
        total += weight @ model.likelihood(model.outputs_at(_values(part), f_test)).probs
    return Probabilities(total / weights[kept].sum())


def _weights(
    model: RECaST, f: Tensor, y: Tensor, box: list[tuple[float, float]], counts: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """log p(t, log gamma, y) at the points of a grid [point, 2]."""
    axes = [torch.linspace(*ends, count, dtype=torch.double) for ends, count in zip(box, counts, strict=True)]
    points = torch.cartesian_prod(*axes)
    found = [model.log_joint(_values(part), f, y) for part in points.split(2000)]
    t, log_gamma = points.unbind(1)
    stretch = RATIO * t.cosh() * (1 + log_gamma.exp())  # d delta / d t
    return torch.cat(found) + stretch.log(), points


def _values(points: Tensor) -> dict[str, Tensor]:
    t, log_gamma = points.unbind(1)
    return {"delta": RATIO * t.sinh() * (1 + log_gamma.exp()), "log_gamma": log_gamma}
