"""What is predicted: recurrence or death within three years, or the oestrogen receptors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from examples.studies.transfer_breast_cancer.cohorts import Cohort
from examples.studies.transfer_breast_cancer.endpoint import YEAR, happened, kept_with, known


@dataclass(frozen=True)
class Response:
    """What is predicted from the features that are left.

    Attributes:
        binary: recurrence or death by the horizon, of patients thinned so that nobody seems
            censored; else the feature `predicted`.
        predicted: the name of a feature.
        without: features that are not used.
        years: the horizon.
        thinned: False for all patients of whom the state at the horizon is known, which has too
            many events.
    """

    binary: bool
    predicted: str = ""
    without: tuple[str, ...] = ()
    years: float = 3.0
    thinned: bool = True

    @property
    def horizon(self) -> float:
        """In days."""
        return YEAR * self.years


RECURRENCE = Response(binary=True)
COMPLETE = Response(binary=True, thinned=False)
RECEPTORS = Response(binary=False, predicted="log(1 + ER)", without=("log(1 + ER)", "hormonal therapy"))
"""Hormonal therapy is decided after the receptors are known: no predictor of them."""


def labelled(cohort: Cohort, response: Response) -> tuple[Tensor, Tensor]:
    """(features, response) of the cohort's patients that the response can use; thinned by torch's
    global generator.
    """
    features = cohort.features(*response.without)
    if not response.binary:
        return features, cohort.feature(response.predicted)
    days, event, horizon = cohort.days, cohort.event, response.horizon
    stays = known(days, event, horizon)
    if response.thinned:
        stays = torch.rand(len(cohort), dtype=torch.double) < kept_with(days, event, horizon)
    return features[stays], happened(days, event, horizon)[stays]
