"""Ridge regression with leave-one-out errors in closed form, and its logistic kin."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

STRENGTHS = tuple(10.0**power for power in range(-3, 5))
"""Penalties that are tried, in units of the mean squared feature: a factor of ten apart."""
FREE = 1e-8
"""What an unpenalised weight has in the place of 1, so that the equations have a solution."""
FOLDS = 5
LEAST = 1e-18
"""Of a noise variance."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """w = argmin |y - H w|^2 + strength sum_j penalty_j w_j^2.

    Attributes:
        weights: [feature].
        strength: the penalty, in units of y^2 / w^2.
        left_out: y_i minus its prediction without it, [batch]; empty for a logistic fit.
    """

    weights: Tensor
    strength: float
    left_out: Tensor


@dataclass(frozen=True, eq=False)
class BayesianRidge(Ridge):
    """A ridge regression with a normal prior and normal noise, both fitted.

    Attributes:
        noise: standard deviation of y about H w.
    """

    noise: float


def with_constant(x: Tensor) -> Tensor:
    """Features [batch, feature + 1], double: those of x, flattened, and a one."""
    h = x.detach().double().flatten(1) if x.dim() > 1 else x.detach().double().unsqueeze(1)
    return torch.cat([h, h.new_ones(len(h), 1)], 1)


def free_constant(h: Tensor) -> Tensor:
    """Penalties [feature] that leave the last weight, the constant's, free."""
    penalty = h.new_ones(h.shape[1])
    penalty[-1] = FREE
    return penalty


def ridge(h: Tensor, y: Tensor, penalty: Tensor) -> Ridge:
    """The strength with the smallest leave-one-out error e_i / (1 - A_ii), A = H (H^T H + D)^-1
    H^T.

    Args:
        h: features [batch, feature], double.
        y: [batch], double.
        penalty: relative penalties [feature], positive.

    Reference: Allen (1974), The relationship between variable selection and data augmentation and
    a method for prediction (PRESS).

    >>> h = torch.eye(3, dtype=torch.double)
    >>> ridge(h, torch.zeros(3).double(), torch.ones(3).double()).weights
    tensor([0., 0., 0.], dtype=torch.float64)
    """
    fits = [ridge_at(h, y, penalty, strength) for strength in strengths(h)]
    return min(fits, key=lambda fit: float(fit.left_out.square().sum()))


def ridge_at(h: Tensor, y: Tensor, penalty: Tensor, strength: float) -> Ridge:
    """The fit at one strength."""
    inverse = torch.linalg.inv(h.mT @ h + torch.diag(strength * penalty))
    weights = inverse @ (h.mT @ y)
    leverage = ((h @ inverse) * h).sum(1)
    residual = y - h @ weights
    return Ridge(weights, strength, residual / (1 - leverage).clamp(min=1e-9))


def bayesian_ridge(h: Tensor, y: Tensor) -> BayesianRidge:
    """The strength noise^2 / scale^2 that maximises the evidence N(y; 0, noise^2 (I + H
    H^T / strength)).

    The noise is that which maximises it at this strength; all weights have the prior N(0,
    scale^2).

    Reference: MacKay (1992), Bayesian interpolation.
    """
    squares, directions = torch.linalg.eigh(h @ h.mT)
    rotated = (directions.mT @ y).square()

    def log_evidence(strength: float) -> tuple[float, float]:
        ratio = 1 + squares.clamp(min=0) / strength
        variance = float((rotated / ratio).mean().clamp(min=LEAST))
        return -(len(y) * math.log(variance) + float(ratio.log().sum())) / 2, variance

    best = max(strengths(h), key=lambda strength: log_evidence(strength)[0])
    fit = ridge_at(h, y, torch.ones_like(h[0]), best)
    return BayesianRidge(fit.weights, best, fit.left_out, math.sqrt(log_evidence(best)[1]))


def logistic_ridge(h: Tensor, y: Tensor, penalty: Tensor, offset: Tensor) -> Ridge:
    """argmin sum_i -log p(y_i | logit = offset_i + h_i w) + strength / 2 sum_j penalty_j w_j^2, by
    cross-validation.

    The strength has the smallest log loss over five folds at random, drawn by torch's global
    generator.

    Args:
        h: features [batch, feature], double.
        y: zeros and ones [batch], double.
        penalty: relative penalties [feature], positive.
        offset: logits [batch] that are added.
    """
    folds = torch.randperm(len(y)) % min(FOLDS, len(y))
    losses = {}
    for strength in strengths(h):
        loss = 0.0
        for fold in range(int(folds.max()) + 1):
            kept, left = folds != fold, folds == fold
            weights = logistic_at(h[kept], y[kept], penalty, offset[kept], strength)
            logits = offset[left] + h[left] @ weights
            loss += float(F.binary_cross_entropy_with_logits(logits, y[left], reduction="sum"))
        losses[strength] = loss
    best = min(losses, key=lambda strength: losses[strength])
    return Ridge(logistic_at(h, y, penalty, offset, best), best, y[:0])


def logistic_at(h: Tensor, y: Tensor, penalty: Tensor, offset: Tensor, strength: float) -> Tensor:
    """The weights at one strength, [feature], by Newton's method with halved steps."""
    weights, diagonal = h.new_zeros(h.shape[1]), strength * penalty

    def loss(w: Tensor) -> Tensor:
        fit = F.binary_cross_entropy_with_logits(offset + h @ w, y, reduction="sum")
        return fit + (diagonal * w.square()).sum() / 2

    value = loss(weights)
    for _ in range(100):
        p = torch.sigmoid(offset + h @ weights)
        gradient = h.mT @ (p - y) + diagonal * weights
        hessian = h.mT @ (h * (p * (1 - p)).unsqueeze(1)) + torch.diag(diagonal)
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and float(loss(weights - size * step)) > float(value):
            size /= 2
        weights, before = weights - size * step, value
        value = loss(weights)
        if float(before - value) < 1e-10 * (1 + abs(float(value))):
            break
    return weights


def strengths(h: Tensor) -> list[float]:
    """The penalties that are tried for these features."""
    unit = max(float(h.square().mean()), 1e-12)
    return [unit * strength for strength in STRENGTHS]
