"""The marginal likelihood of a Laplace approximation, and the prior scales and
noise that maximise it.
"""

import logging
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from bayesnn.guides.laplace.structure import Structure
from bayesnn.likelihoods import HasNormalNoise, Likelihood, learned
from bayesnn.models import BNN
from bayesnn.priors import rescaled
from bayesnn.scales import Learned
from bayesnn.sites import from_vector

log = logging.getLogger(__name__)

Per: TypeAlias = Literal["network", "block", "weight"]
"""For which weights one factor of the prior's precision is shared."""

BOUNDS = (-10.0, 15.0)
"""Of log precisions fitted for blocks or weights, after Immer et al. (2021):
beyond, a block is flat or fixed.
"""


@dataclass
class Evidence:
    """log p(y) of N(w*, (scale H + P)^-1), as a function of the precisions and of the noise.

    Attributes:
        structure: has H.
        scale: its factor.
        log_likelihood: log p(y | w*), in nats.
        observations: numbers in the targets.
        precision: diag P, [param].
        difference: w* - m, [param].
    """

    structure: Structure
    scale: float
    log_likelihood: Tensor
    observations: float
    precision: Tensor
    difference: Tensor
    _spectrum: Tensor | None = None

    @property
    def quadratic(self) -> Tensor:
        """(w* - m)^T P (w* - m)."""
        return (self.difference**2 * self.precision).sum()

    @property
    def spectrum(self) -> Tensor:
        """Eigenvalues of P^-1/2 (scale H) P^-1/2."""
        if self._spectrum is None:
            self._spectrum = self.structure.spectrum(self.precision / self.scale)
        return self._spectrum

    def of_factor(self, factor: Tensor) -> Tensor:
        """The log evidence under the prior precision factor * P, of the factor's shape."""
        ratio = (self.spectrum / factor.unsqueeze(-1)).log1p().sum(-1)
        return self.log_likelihood - 0.5 * (factor * self.quadratic + ratio)

    def of_factors(self, factors: Tensor, noise_variance: Tensor, squares: Tensor) -> Tensor:
        """The log evidence under precisions factors * P.

        The noise variance is multiplied by `noise_variance`.

        `squares` is the sum of squared residuals, in units of the present noise variance.
        """
        precision = factors * self.precision
        ratio = self.structure.log_ratio(precision * noise_variance / self.scale)
        likelihood = self.log_likelihood + self.gain(noise_variance, squares)
        return likelihood - 0.5 * ((precision * self.difference**2).sum() + ratio)

    def gain(self, noise_variance: Tensor, squares: Tensor) -> Tensor:
        """log p(y | w*) with the noise variance multiplied, minus its value without."""
        return 0.5 * (squares * (1 - 1 / noise_variance) - self.observations * noise_variance.log())


@dataclass(frozen=True)
class Maximum:
    """The model with the best prior and noise; the factor of the noise
    variance; log p(y | w*) under it.
    """

    model: BNN
    noise_variance: float
    log_likelihood: Tensor


def maximum(evidence: Evidence, model: BNN, *, per: Per, fit_noise: bool) -> Maximum:
    """The maximum, by bisection for one factor alone, otherwise by L-BFGS in the logarithms.

    Raises:
        ValueError: there is no maximum; see `Laplace.maximise_evidence`.
    """
    if per not in ("network", "block", "weight"):
        raise ValueError(f"Laplace: one factor per 'network', 'block' or 'weight', not per {per!r}")
    if per == "network" and not fit_noise:
        factor = _bisection(evidence)
        prior = rescaled(model.prior, factor**-0.5)
        return Maximum(model.with_prior(prior), 1.0, evidence.log_likelihood)
    squares = _squares(evidence, model) if fit_noise else evidence.precision.new_zeros(())
    factors, variance = _climb(evidence, _groups(model, per), squares, fit_noise=fit_noise)
    best = model.with_prior(rescaled(model.prior, _by_block(model, factors.rsqrt(), per)))
    if fit_noise:
        best = best.with_likelihood(_noisier(model.likelihood, math.sqrt(variance)))
    gain = evidence.gain(torch.as_tensor(variance, dtype=torch.double), squares) if fit_noise else 0.0
    return Maximum(best, variance, evidence.log_likelihood + gain)


def _bisection(evidence: Evidence) -> float:
    values, quadratic = evidence.spectrum, evidence.quadratic

    def grows(log_factor: float) -> bool:
        """Whether the evidence grows in log(factor): it does up to its maximum,
        which is the only one.
        """
        factor = math.exp(log_factor)
        return bool((values / (values + factor)).sum() > factor * quadratic)

    low, high = -46.0, 46.0
    if grows(high):
        raise ValueError(
            "Laplace: the evidence grows without end in the prior's precision, since the weights lie at the "
            "prior's mean; keep a fixed prior scale"
        )
    if not grows(low):
        raise ValueError(
            "Laplace: the evidence falls in the prior's precision from 0 on, since the data say nothing of the "
            "weights; keep a fixed prior scale"
        )
    while high - low > 1e-13:
        middle = (low + high) / 2
        low, high = (middle, high) if grows(middle) else (low, middle)
    return math.exp(low)


def _groups(model: BNN, per: Per) -> Tensor:
    """The number of each weight's factor, [param]."""
    counts = torch.tensor([model.subset.count(name) for name in model.subset.names])
    if per == "weight":
        return torch.arange(int(counts.sum()))
    blocks = torch.arange(len(counts)) if per == "block" else torch.zeros(len(counts), dtype=torch.long)
    return blocks.repeat_interleave(counts)


def _climb(evidence: Evidence, groups: Tensor, squares: Tensor, *, fit_noise: bool) -> tuple[Tensor, float]:
    """The factors of the precisions, [param], and of the noise variance."""
    device = evidence.precision.device
    groups = groups.to(device)
    count = int(groups.max()) + 1
    # Every factor starts at 1; bounds are those of the geometric mean of its weights' precisions.
    start = torch.zeros(count, dtype=torch.double, device=device)
    sizes = start.clone().index_add_(0, groups, torch.ones_like(evidence.precision))
    centre = start.clone().index_add_(0, groups, evidence.precision.log()) / sizes
    low, high = (bound - centre for bound in BOUNDS)
    width = high - low
    point = torch.special.logit((-low / width).clamp(1e-3, 1 - 1e-3)).requires_grad_()
    log_noise = torch.zeros((), dtype=torch.double, device=device, requires_grad=fit_noise)

    def factors() -> Tensor:
        return (low + width * point.sigmoid()).exp()[groups]

    optimizer = torch.optim.LBFGS(
        [point, log_noise] if fit_noise else [point],
        max_iter=500,
        tolerance_grad=1e-9,
        tolerance_change=1e-13,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = -evidence.of_factors(factors(), log_noise.exp(), squares)
            loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    share = point.detach().sigmoid()
    stuck = (share < 1e-3) | (share > 1 - 1e-3)
    if bool(stuck.any()):
        log.warning(
            "Laplace: %d of %d prior precisions ran to a bound, exp(%g) or exp(%g): the data say nothing of those "
            "weights, or they lie at the prior's mean",
            int(stuck.sum()), count, *BOUNDS,
        )  # fmt: skip
    return factors().detach(), float(log_noise.detach().exp())


def _squares(evidence: Evidence, model: BNN) -> Tensor:
    """sum (y - f)^2 / s^2, from log p(y | w*)."""
    likelihood = model.likelihood
    if not isinstance(likelihood, HasNormalNoise) or isinstance(likelihood.noise, torch.distributions.Distribution):
        raise ValueError(
            "Laplace: fit_noise=True fits the scale of likelihoods.normal; this likelihood has none to fit"
        )
    scale = likelihood.noise_scale(evidence.log_likelihood).detach()
    constant = evidence.observations * (math.log(2 * math.pi) + 2 * scale.log().mean())
    return -2 * evidence.log_likelihood - constant


def _noisier(likelihood: Likelihood, factor: float) -> Likelihood:
    """The same likelihood with its noise multiplied."""
    assert isinstance(likelihood, HasNormalNoise)
    noise = likelihood.noise
    if isinstance(noise, Learned):
        return likelihood.with_noise(learned(noise().detach() * factor))
    return likelihood.with_noise(noise * factor)


def _by_block(model: BNN, factors: Tensor, per: Per) -> dict[str, Tensor]:
    """{block: factor of its prior scale}: one number, or one for every entry."""
    parts = from_vector(factors, {name: model.subset.event_shape(name) for name in model.subset.names})
    return parts if per == "weight" else {name: part.reshape(-1)[0] for name, part in parts.items()}
