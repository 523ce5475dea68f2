"""RECaST as a method of a transfer study."""

from collections.abc import Mapping

import torch
from pyro import distributions as dist

from bayesnn.guides import RECaSTGuide
from bayesnn.models.recast import Effect, RECaST, binary, continuous
from bayesnn.transfer.data import TransferData
from bayesnn.transfer.predictions import DrawnQuantiles, Prediction, Probabilities

DRAWS, EACH = 1000, 10
"""Draws of the posterior, and of y from each: 10,000 of y."""


def recast(
    data: TransferData,
    seed: int,
    *,
    effect: Effect | None = None,
    priors: Mapping[str, dist.TorchDistribution] | None = None,
) -> Prediction:
    """`RECaSTGuide`'s corrected draws under the published priors; quantiles of 10,000 draws of y,
    or mean probability.

    `notes["khat"]` is the tail index of the importance weights: from 0.7 on the draws cannot be
    trusted, and `recast_nuts` should be used. `notes["delta"]` and `notes["gamma"]` are posterior
    medians.

    `effect` is another family of beta and `priors` are other priors,
    `partial(recast, effect=NormalEffect())`: comparisons, not the published method.

    Raises:
        ValueError: predictions of the source that RECaST refuses.
    """
    model = recast_model(data, effect=effect, priors=priors).of_predictions()
    generator = torch.Generator().manual_seed(seed)
    f = data.f_train
    guide = RECaSTGuide(model).fit(f, data.y_train, generator=generator)
    corrected = guide.corrected(f, data.y_train, DRAWS, generator=generator)
    medians = {name: float(corrected[name].median()) for name in model.priors}
    notes = {
        "khat": corrected.khat,
        "delta": medians["delta"],
        "gamma": float(torch.tensor(medians["log_gamma"], dtype=torch.double).exp()),
    }
    response = model.likelihood(model.outputs_at(corrected, data.f_test))
    if data.binary:
        return Probabilities(response.probs.mean(0), notes)
    return DrawnQuantiles(response.sample(torch.Size([EACH])).flatten(0, 1), notes)


def recast_model(
    data: TransferData,
    *,
    effect: Effect | None = None,
    priors: Mapping[str, dist.TorchDistribution] | None = None,
) -> RECaST:
    """The model of these data: `recast.binary` or `recast.continuous` of the source."""
    if data.binary:
        return binary(data.source, link=data.link, effect=effect, priors=priors)
    return continuous(data.source, effect=effect, priors=priors)
