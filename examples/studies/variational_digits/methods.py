"""The methods: each trains on a task under a setting, and gives one or several ways to predict."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from bayesnn.guides import (
    SWAG,
    LocalReparameterisationELBO,
    MeanField,
    MeanFieldELBO,
    MomentPropagationELBO,
    MultiplicativeNoise,
    VariationalLaplaceELBO,
)
from bayesnn.predict import linearised, predictive, probit

from examples.studies.common.predictors import Predictor, softmax
from examples.studies.common.training import Setting, Task, bayesian, network, point, snapshots, train

DRAWS = 4 if os.environ.get("SMOKE") else 30
START = 0.01
"""Standard deviations of normal posteriors at the start of their training."""

Ways = dict[str, Predictor]
"""{how: predictor}; the first is the method's own, by which its setting is chosen."""


def drawn(guide: Any, x: Tensor) -> Tensor:
    """Weights drawn and put into the network."""
    return predictive(guide, x, DRAWS).component_probs


def functions(guide: MeanField, x: Tensor) -> Tensor:
    """Functions drawn: the network linearised in its weights at the mean, with drawn weights."""
    return linearised(guide, x, DRAWS, joint=True).softmax(-1)


def at_mean(guide: MeanField, x: Tensor) -> Tensor:
    """The network with the posterior's mean as its weights."""
    sites = guide.model.sites
    parts = guide.loc.split([shape.numel() for shape in sites.values()])
    values = {site: part.reshape(shape) for (site, shape), part in zip(sites.items(), parts, strict=True)}
    return guide.model.outputs(values, x).softmax(-1).unsqueeze(0)


def one_pass(guide: MultiplicativeNoise, x: Tensor) -> Tensor:
    """Moments propagated to the outputs, and the probit formula."""
    return probit(guide.model.likelihood, guide.output_distribution(x)).component_probs


def maximum(task: Task, setting: Setting) -> Ways:
    """MAP, or maximum likelihood where the prior has no end."""
    return {"": partial(softmax, point(task, setting))}


def swag(start: nn.Module, task: Task, setting: Setting) -> Ways:
    """Snapshots of a training that goes on from MAP."""
    guide = None
    for net in snapshots(start, task, setting):
        guide = guide or SWAG(bayesian(net, setting, len(task.data)))
        guide.collect()
    return {"": partial(drawn, guide)}


def mean_field(elbo: Any, task: Task, setting: Setting) -> Ways:
    """A variance for each weight, by draws."""
    # A KL weight of 0.1 is a likelihood in which every image counts ten times.
    model = bayesian(network(task.seed), setting, round(len(task.data) / setting.kl_weight))
    guide = MeanField(model, scale=START)
    train(elbo(model, guide), task, setting)
    return {"": partial(drawn, guide)}


def variational_laplace(task: Task, setting: Setting) -> Ways:
    """A variance for each weight, by expansion at the mean: a posterior of the
    linearised network.
    """
    model = bayesian(network(task.seed), setting, len(task.data))
    guide = MeanField(model, scale=START)
    train(VariationalLaplaceELBO(kl_weight=setting.kl_weight)(model, guide), task, setting)
    return {
        "": partial(functions, guide),
        "at its mean": partial(at_mean, guide),
        "weights drawn": partial(drawn, guide),
    }


def multiplicative_noise(task: Task, setting: Setting) -> Ways:
    """A relative variance for each input, by propagated moments."""
    model = bayesian(network(task.seed), setting, len(task.data))
    guide = MultiplicativeNoise(model)
    train(MomentPropagationELBO(kl_weight=setting.kl_weight)(model, guide), task, setting)
    return {"": partial(one_pass, guide), "weights drawn": partial(drawn, guide)}


@dataclass(frozen=True)
class Method:
    """A method and what its setting is chosen from: all of `first`, then `gains` at the best KL
    weight of those.
    """

    fit: Callable[[Task, Setting], Ways]
    first: Sequence[Setting]
    gains: Sequence[float] = ()


MAP, NONE = "MAP", "no weight decay"
POINTS = {
    MAP: Method(maximum, [Setting(gain) for gain in (3.0, 4.0, 6.0, 8.0, 16.0)]),
    NONE: Method(maximum, [Setting(math.inf)]),
}
RATES = (0.003, 0.01, 0.03)
TEMPERED = [Setting(1.0, weight) for weight in (1.0, 0.03, 0.01)]
WIDER = (2.0,)
POSTERIORS = {
    "mean-field": Method(partial(mean_field, MeanFieldELBO()), TEMPERED, WIDER),
    "mean-field, local reparameterisation": Method(partial(mean_field, LocalReparameterisationELBO()), TEMPERED, WIDER),
    "variational Laplace": Method(variational_laplace, TEMPERED, WIDER),
    "MNVI": Method(multiplicative_noise, TEMPERED, WIDER),
}
