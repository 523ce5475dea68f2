"""Methods that see the source's predictions alone, or no source: what
recalibration has to beat.
"""

import math

import torch
from torch import Tensor

from bayesnn.transfer.data import TransferData
from bayesnn.transfer.predictions import ConformalQuantiles, NormalQuantiles, Prediction, Probabilities
from bayesnn.transfer.ridge import FREE, free_constant, logistic_at, logistic_ridge, ridge, with_constant


def source_only(data: TransferData, seed: int) -> Prediction:
    """y ~ N(f, s^2), s the root mean squared residual of the target's training data; or
    P(y = 1) = expit(f).
    """
    if data.binary:
        return Probabilities(data.f_test.sigmoid())
    f = data.f_test
    return NormalQuantiles(f, (data.y_train.double() - data.f_train).square().mean().sqrt().expand_as(f))


def recalibrated(data: TransferData, seed: int) -> Prediction:
    """y = a + b f + N(0, s^2) by least squares, intervals with the error of (a, b); or
    P(y = 1) = expit(f / T).

    The normal is not a Student t: with few training examples the intervals are a little short. The
    inverse temperature 1/T has a ridge of 1e-3 around 1, since it has no best value where f
    separates the classes.
    """
    if data.binary:
        return Probabilities((_inverse_temperature(data.f_train, data.y_train.double()) * data.f_test).sigmoid())
    h, new, y = with_constant(data.f_train), with_constant(data.f_test), data.y_train.double()
    inverse = torch.linalg.inv(h.mT @ h + FREE * torch.eye(2, dtype=torch.double))
    weights = inverse @ (h.mT @ y)
    noise = (y - h @ weights).square().sum() / max(len(y) - 2, 1)
    return NormalQuantiles(new @ weights, (noise * (1 + ((new @ inverse) * new).sum(1))).sqrt())


def conformal(data: TransferData, seed: int) -> Prediction:
    """Split conformal intervals around y = a + b f: half of the training data fit the line, half
    give the errors.

    Raises:
        ValueError: a binary response; fewer than six training examples.
    """
    if data.binary:
        raise ValueError("conformal: it has intervals and no probabilities; leave it out for a binary response")
    n = len(data.y_train)
    if n < 6:
        raise ValueError(f"conformal: {n} training examples are too few for two halves; at least 6 are needed")
    order = torch.randperm(n)
    fitted, left = order[: n // 2], order[n // 2 :]
    h, y = with_constant(data.f_train), data.y_train.double()
    weights = torch.linalg.lstsq(h[fitted], y[fitted, None]).solution.squeeze(1)
    return ConformalQuantiles(with_constant(data.f_test) @ weights, y[left] - h[left] @ weights)


def target_only(data: TransferData, seed: int) -> Prediction:
    """Ridge regression on the target's inputs, with its leave-one-out errors for an interval; no
    source.

    The strength is the best by leave-one-out, or by five folds of a logistic regression.
    """
    return _ridge_prediction(data, with_constant(data.x_train), data.y_train.double())


def pooled(data: TransferData, seed: int) -> Prediction:
    """Ridge regression on source and target data together; its interval is that of the target's
    errors.

    Raises:
        ValueError: the source's own data are not in `data`.

    Reference: Wiens, Guttag, Horvitz (2014), A study in transfer learning: leveraging data from
    multiple hospitals to enhance hospital-specific predictions.
    """
    if data.x_source is None or data.y_source is None:
        raise ValueError("pooled: the source's own data are needed, x_source and y_source of TransferData")
    h = torch.cat([with_constant(data.x_train), with_constant(data.x_source)])
    return _ridge_prediction(data, h, torch.cat([data.y_train, data.y_source]).double())


def _ridge_prediction(data: TransferData, h: Tensor, y: Tensor) -> Prediction:
    """The first rows of h are the target's."""
    new = with_constant(data.x_test)
    if data.binary:
        weights = logistic_ridge(h, y, free_constant(h), torch.zeros_like(y)).weights
        return Probabilities((new @ weights).sigmoid())
    fit = ridge(h, y, free_constant(h))
    mean = new @ fit.weights
    sd = fit.left_out[: len(data.y_train)].square().mean().sqrt()
    return NormalQuantiles(mean, sd.expand_as(mean))


def _inverse_temperature(f: Tensor, y: Tensor) -> float:
    h, penalty = f.unsqueeze(1), torch.ones(1, dtype=torch.double)
    return max(1.0 + float(logistic_at(h, y, penalty, f, 1e-3)), math.ulp(1.0))
