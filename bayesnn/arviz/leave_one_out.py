"""Leave-one-out predictions of the data that a posterior was fitted to, exact given its draws."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesnn.arviz.khat import pareto_smoothed
from bayesnn.predict.distribution import PredictiveDistribution


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """What `leave_one_out` gives.

    Attributes:
        log_density: log p(y_i | y without i) in nats, [batch]; its sum is "elpd_loo".
        khat: tail index of the importance weights of each example, [batch]; at 0.7 and above (with
            S draws, at 1 - 1 / log10 S where that is less) its numbers cannot be trusted: the
            example moves the posterior too much.
        log_weights: that sum to one over draws, [draw, batch]: draw s counts so much for example
            i.
    """

    log_density: Tensor
    khat: Tensor
    log_weights: Tensor

    @property
    def elpd(self) -> float:
        """The expected log predictive density of as many new examples, in nats:
        the sum of `log_density`.
        """
        return float(self.log_density.sum())

    @property
    def standard_error(self) -> float:
        """Of `elpd`, from the spread over examples."""
        return float(self.log_density.std() * len(self.log_density) ** 0.5)


def leave_one_out(p: PredictiveDistribution, y: Tensor) -> LeaveOneOut:
    """p(y_i | y_-i) = sum_s w_is p_s(y_i), w_is proportional to 1 / p_s(y_i), Pareto smoothed.

    Args:
        p: `predictive(draws, x)` at the inputs that the posterior was fitted to, its draws from
            the posterior itself: of MCMC, or `RECaSTGuide.corrected(x, y)`. Those of a guide are
            an approximation's.
        y: targets that the posterior was fitted to, [batch, *event].

    Raises:
        ImportError: ArviZ, which smooths the weights, is not installed.
        ValueError: a y of another shape, or one that some draw finds impossible.

    Reference: Vehtari, Gelman, Gabry (2017), Practical Bayesian model evaluation using
    leave-one-out cross-validation and WAIC.

    >>> from pyro import distributions as dist
    >>> mu = torch.linspace(-0.1, 0.1, 50).unsqueeze(1)
    >>> found = leave_one_out(PredictiveDistribution(dist.Normal(mu.expand(50, 3), 1.0)), torch.zeros(3))
    >>> round(found.elpd, 2)                       # 3 log N(0 | 0, 1), all but exactly
    -2.76
    """
    if y.shape != p.batch_shape + p.event_shape:
        raise ValueError(
            f"leave_one_out: y has shape {tuple(y.shape)}, the predictions {tuple(p.batch_shape + p.event_shape)}"
        )
    log_p = p.components.log_prob(y).detach().double().cpu()
    if not bool(log_p.isfinite().all()):
        bad = int((~log_p.isfinite()).any(0).nonzero()[0])
        raise ValueError(f"leave_one_out: y[{bad}] has no finite density for some draw; is it within the support?")
    smoothed = [_smoothed(-one) for one in log_p.T.numpy()]
    log_weights = torch.as_tensor(np.stack([weights for weights, _ in smoothed], 1))
    khat = torch.tensor([k for _, k in smoothed], dtype=torch.double)
    return LeaveOneOut((log_weights + log_p).logsumexp(0), khat, log_weights)


def loo_pit(p: PredictiveDistribution, y: Tensor) -> Tensor:
    """u_i = P(y <= y_i | y without i) = sum_s w_is F_s(y_i), [batch, *event]: uniform if the model
    is calibrated.

    F_s is the exact cdf of the likelihood under draw s, so nothing is sampled. For
    `plots.pit_histogram` and `plots.coverage_curve`, of the data that the posterior was fitted to;
    new data need no weights, `p.cdf(y)`.

    Args:
        p: as for `leave_one_out`.
        y: as for `leave_one_out`; continuous.

    Raises:
        NotImplementedError: counts and labels, whose transform is not uniform; a family without a
            cdf.
        ValueError: as `leave_one_out`.

    Reference: Gelfand, Dey, Chang (1992), Model determination using predictive distributions;
    Vehtari, Gelman, Gabry (2017) for the weights.

    >>> from pyro import distributions as dist
    >>> mu = torch.linspace(-0.1, 0.1, 50).unsqueeze(1)
    >>> p = PredictiveDistribution(dist.Normal(mu.expand(50, 3), 1.0))
    >>> loo_pit(p, torch.tensor([-1.0, 0.0, 1.0])).round(decimals=2)
    tensor([0.1600, 0.5000, 0.8400])
    """
    if p.support is not None and getattr(p.support, "is_discrete", False):
        raise NotImplementedError("loo_pit: the transform of labels and counts is not uniform; use leave_one_out")
    weights = leave_one_out(p, y).log_weights.exp()
    each = p.component_cdf(y)
    found = weights.reshape(weights.shape + (1,) * p.event_dim).to(each)
    return (found * each).sum(0)


def _smoothed(log_weights: Any) -> tuple[Any, float]:
    """`pareto_smoothed`; weights that are all the same, of one draw for all, have no tail."""
    if np.ptp(log_weights) < 1e-12:
        return np.full(len(log_weights), -math.log(len(log_weights))), -math.inf
    return pareto_smoothed(log_weights)
