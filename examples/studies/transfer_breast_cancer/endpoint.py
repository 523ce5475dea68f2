"""Recurrence-free survival at a horizon: the endpoint, Kaplan and Meier's estimate, and a sample
without censoring.
"""

import torch
from torch import Tensor

YEAR = 365.25


def recurrence_free(rtime: Tensor, recur: Tensor, dtime: Tensor, death: Tensor) -> tuple[Tensor, Tensor]:
    """(days to recurrence, death or the end of follow-up; whether recurrence or death came), each
    [patient].

    A death after the follow-up for recurrence had ended does not count: whether a recurrence came
    before it is not known. Such patients are censored where that follow-up ends.
    """
    died = (death == 1) & (dtime <= rtime)
    return rtime, (recur == 1) | died


def kaplan_meier(days: Tensor, event: Tensor, at: Tensor) -> Tensor:
    """S(t) = prod_{t_j <= t} (1 - d_j / n_j) at the times `at`, d_j events and n_j at risk at time
    t_j.

    Reference: Kaplan, Meier (1958), Nonparametric estimation from incomplete observations.

    >>> kaplan_meier(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True]), torch.tensor([0.5, 1.0, 3.0]))
    tensor([1.0000, 0.6667, 0.0000], dtype=torch.float64)
    """
    times = days[event].unique()
    at_risk = (days.unsqueeze(1) >= times).sum(0)
    events = ((days.unsqueeze(1) == times) & event.unsqueeze(1)).sum(0)
    survival = torch.cat([torch.ones(1).double(), (1 - events.double() / at_risk).cumprod(0)])
    return survival[torch.searchsorted(times, at, right=True)]


def known(days: Tensor, event: Tensor, horizon: float) -> Tensor:
    """Whether the state at the horizon is known: not of patients censored before it, [patient]."""
    return event | (days > horizon)


def happened(days: Tensor, event: Tensor, horizon: float) -> Tensor:
    """One where the event came by the horizon, else zero, [patient], double;
    for patients of whom it is known.
    """
    return (event & (days <= horizon)).double()


def kept_with(days: Tensor, event: Tensor, horizon: float) -> Tensor:
    """Probabilities [patient] of staying in a sample that is as if nobody had been censored.

    Patients whose state at the horizon is known are weighted by 1 / G, with G the probability of
    not being censored before their event, or before the horizon. As methods take no weights, an
    early event stays with probability G(horizon) / G(its day) instead, which is the weight over
    the largest weight; who is event-free at the horizon stays always, and who is censored before
    never. Then the expected share of events is 1 - S(horizon) of `kaplan_meier`, exactly, and
    examples stay independent. G is the estimate of `kaplan_meier` for the time to censoring, with
    events before censorings on the same day.

    Censoring has to be independent of the event, and here of the covariates too.

    References: Vock et al. (2016), Adapting machine learning techniques to censored time-to-event
    health record data; Zadrozny, Langford, Abe (2003), Cost-sensitive learning by
    cost-proportionate example weighting (rejection).
    """
    just_before = days.double() - 0.5  # whole days: the events of a day come before its censorings
    uncensored = kaplan_meier(
        days.double() - 0.5 * event, ~event, torch.cat([just_before, just_before[:1] * 0 + horizon])
    )
    early = event & (days <= horizon)
    return torch.where(early, uncensored[-1] / uncensored[:-1], known(days, event, horizon).double())
