"""The methods that are compared: those of the library, and three more that
readers of such a study ask for.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from pyro import distributions as dist

from bayesnn import metrics
from bayesnn.models.recast import NormalEffect
from bayesnn.transfer import (
    DrawnQuantiles,
    Method,
    Prediction,
    Probabilities,
    TransferData,
    conformal,
    fine_tuned,
    last_layer,
    last_layer_laplace,
    pooled,
    recalibrated,
    recast,
    source_only,
    target_only,
)
from bayesnn.transfer.ridge import logistic_at, with_constant

from examples.studies.transfer_breast_cancer.exact import exact_recast

STRENGTH = 1e-3
"""Of the ridge around (0, 1) of intercept and slope, which have no best value
where f separates the classes.
"""


def intercept_and_slope(data: TransferData, seed: int) -> Prediction:
    """P(y = 1) = expit(a + b f) by maximum likelihood: the recalibration of clinical prediction
    models.

    Raises:
        ValueError: a response that is not binary; `recalibrated` has both numbers then.

    Reference: Cox (1958), Two further applications of a model for binary regression.
    """
    if not data.binary:
        raise ValueError("intercept_and_slope: the response is not binary; take recalibrated, which has both")
    h, y = with_constant(data.f_train), data.y_train.double()
    change = logistic_at(h, y, torch.ones_like(h[0]), data.f_train, STRENGTH)
    return Probabilities((data.f_test + with_constant(data.f_test) @ change).sigmoid())


def centred_recast(data: TransferData, seed: int) -> Prediction:
    """RECaST of y - c and f - c, c the mean response of the source's data: not the published
    method.

    A random effect multiplies the distance of f from zero, so that the origin of y matters.

    Raises:
        ValueError: a binary response; the source's own data are not there.
    """
    if data.binary or data.y_source is None:
        raise ValueError("centred_recast: it needs a real response and the source's own data")
    c = data.y_source.double().mean()
    moved = TransferData(None, data.f_train - c, data.y_train - c, data.f_test - c, data.y_test - c)
    found = recast(moved, seed)
    if not isinstance(found, DrawnQuantiles):
        raise TypeError("centred_recast: recast gave no draws")
    return replace(found, draws=found.draws + c)


def with_excess(method: Method, data: TransferData, seed: int) -> Prediction:
    """The same prediction with two more notes, for the study to keep.

    "excess" is the mean probability minus the share of ones, or the mean of medians minus that of
    y; "ece_floor" the ECE that would be seen if these probabilities were right.
    """
    found = method(data, seed)
    y = data.y_test
    if isinstance(found, Probabilities):
        error = metrics.ece(torch.stack([1 - found.probs, found.probs], 1), y.long(), resamples=50)
        notes = {"excess": float(found.probs.mean() - y.mean()), "ece_floor": error.noise_floor}
    else:
        notes = {"excess": float(found.quantile(0.5).mean() - y.mean())}
    return replace(found, notes={**found.notes, **notes})  # type: ignore[type-var]


def _noted(methods: Mapping[str, Method]) -> dict[str, Method]:
    return {name: partial(with_excess, method) for name, method in methods.items()}


EXACT, NORMAL = "RECaST, exact posterior", "RECaST, normal effect"
CENTRED, NARROW = "RECaST, centred", "RECaST, narrow priors"
RECAST = ("RECaST", EXACT, NARROW, NORMAL, CENTRED)
PRIORS = {"delta": dist.Normal(1.0, 0.5), "log_gamma": dist.Normal(-2.0, 1.0)}
"""Of `NARROW`, for logits: the source is about right, and gamma 0.02 to 1. Not
the published priors.
"""
_OURS: Mapping[str, Method] = {"RECaST": recast, NORMAL: partial(recast, effect=NormalEffect())}
_REST: Mapping[str, Method] = {
    "last layer": last_layer,
    "last-layer Laplace": last_layer_laplace,
    "fine-tuned": fine_tuned,
    "pooled ridge": pooled,
    "target only": target_only,
}
_OF_ONES: Mapping[str, Method] = {"one temperature": recalibrated, "intercept and slope": intercept_and_slope}
_OF_NUMBERS: Mapping[str, Method] = {"straight line": recalibrated, "conformal": conformal}
_VARIANTS: Mapping[str, Method] = {NARROW: partial(recast, priors=PRIORS), EXACT: exact_recast}
BINARY = _noted({**_OURS, **_VARIANTS, "source only": source_only, **_OF_ONES, **_REST})
CONTINUOUS = _noted({**_OURS, CENTRED: centred_recast, "source only": source_only, **_OF_NUMBERS, **_REST})
