"""Which methods are compared, and how their settings are chosen."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyro
import torch

from bayesnn.predict import PredictiveDistribution

from examples.studies.uci_regression import points, variational
from examples.studies.uci_regression.problem import Data, problem
from examples.studies.uci_regression.recipe import Fit, Recipe

Settings = Mapping[str, float]

SMOKE = bool(os.environ.get("SMOKE"))
SCALES = tuple({"scale": scale} for scale in ((0.1, 0.2) if SMOKE else (0.05, 0.1, 0.2, 0.4, 0.8)))
KL_WEIGHTS = tuple({"scale": 0.5, "kl_weight": weight} for weight in (1.0, 0.1))
RATES = (0.03,) if SMOKE else (0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Method:
    """A line of the tables.

    Attributes:
        heads: as in `Recipe`.
        candidates: settings that validation chooses among.
        given: the method whose chosen settings are taken; `candidates` then are further ones.
        standardised: whether targets are.
    """

    name: str
    fit: Fit
    candidates: Sequence[Settings] = ({},)
    heads: int = 1
    given: str = ""
    standardised: bool = True


METHODS = (
    Method("MAP", partial(points.ensemble, members=1), SCALES),
    Method("MAP, noise from held-out data", points.held_out_noise, given="MAP"),
    Method("deep ensemble of 5", points.ensemble, given="MAP"),
    Method("Laplace, full", points.laplace, SCALES),
    Method("SWAG", points.swag, tuple({"rate": rate} for rate in RATES), given="MAP"),
    Method("mean-field", variational.mean_field, KL_WEIGHTS),
    Method("mean-field, local reparam.", variational.local_reparameterisation, KL_WEIGHTS),
    Method("variational Laplace", variational.variational_laplace, KL_WEIGHTS),
    Method("MNVI", variational.multiplicative_noise, KL_WEIGHTS),
    Method("MAP, 2 heads", partial(points.ensemble, members=1), SCALES, heads=2),
    Method("deep ensemble of 5, 2 heads", points.ensemble, heads=2, given="MAP, 2 heads"),
    Method("MNVI, 2 heads", variational.multiplicative_noise, KL_WEIGHTS, heads=2),
    Method("MNVI as published, 2 heads", variational.published, heads=2, standardised=False),
)


def choose(method: Method, given: Settings, train: Data, recipe: Recipe, seed: int) -> Settings:
    """The settings with the largest log density of every fifth training
    example, when trained on the others.
    """
    settings = [{**given, **one} for one in method.candidates]
    if len(settings) == 1:
        return settings[0]
    order = torch.randperm(len(train.x), generator=torch.Generator().manual_seed(seed))
    held_out = len(order) // 5
    inner = problem(train.rows(order[held_out:]), train.rows(order[:held_out]), targets=method.standardised)

    def score(one: Settings) -> float:
        pyro.set_rng_seed(seed)
        try:
            p = method.fit(inner.train, recipe, **one)(inner.test.x)
        except FloatingPointError:  # a learning rate of SGD that is too large
            return -torch.inf
        return float(p.log_prob(inner.test.y).mean())

    return max(settings, key=score)


def predict(
    method: Method, settings: Settings, train: Data, test: Data, recipe: Recipe, seed: int
) -> tuple[PredictiveDistribution, Data, float]:
    """The predictive of a test set, the test set in the same unit, and that unit."""
    pyro.set_rng_seed(seed)
    whole = problem(train, test, targets=method.standardised)
    return method.fit(whole.train, recipe, **settings)(whole.test.x), whole.test, whole.unit
