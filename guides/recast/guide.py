"""A normal posterior of RECaST's two or three numbers, and draws from it that
are corrected to the posterior.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from bayesnn.functional import Inputs
from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.handlers import prefix_of
from bayesnn.models.recast import PRIORS, RECaST, source_weights, with_source

TAIL = 3.0
"""Degrees of freedom of the proposals: their tails are heavier than the posterior's."""
ROUNDS, PROPOSALS = 4, 400
"""Of the adaptation: so many times so many draws."""
FIRST, KERNELS = 1000, 200
"""Of the correction: draws that find the posterior, and kernels that cover it."""
WIDTH, WIDE = 1.4, 0.3
"""How many times wider kernels are than by Silverman's rule, and the share of a wide Student-t
beside them: with 1 and 0.1 the weights had k-hat >= 0.7 in a tenth of the posteriors of 20
examples, with these in less than a hundredth."""
SOURCES, FEWEST_SOURCES = 200, 2
"""Draws over which an uncertain source's probabilities are averaged; effective ones below which
there is a warning.
"""


class RECaSTGuide(CheckedState):
    """q(delta, log gamma, log sigma) = N(m, C): by the mode's curvature first, then by matching
    moments.

    With labels delta grows with gamma along a ridge, and the normal is that of
    (delta / (1 + gamma), log gamma), in which the ridge is straight.

    `fit(x, y)` finds the mode and the Hessian there (a Laplace approximation). Where gamma is
    small its likelihood is flat, the posterior is skewed and the curvature at the mode says little
    of it; so mean and covariance are then those of the posterior itself, estimated by a few rounds
    of adaptive importance sampling with Student-t proposals. `adapt=False` leaves the Laplace
    approximation. Draws that are corrected for what a normal cannot be: `corrected(x, y)`.

    Args:
        model: of `recast.continuous`, `recast.binary` or `recast.categorical`. The draw of an
            uncertain source is independent of the numbers in q, with its posterior probabilities;
            `corrected` draws it given the numbers.

    References: Cappe, Guillin, Marin, Robert (2004), Population Monte Carlo, for the adaptation;
    West (1993), Approximating posterior distributions by mixtures, for the correction.

    >>> from bayesnn.models import recast
    >>> f = torch.linspace(-2, 2, 40)
    >>> guide = RECaSTGuide(recast.continuous(None)).fit(f, f + 0.1 * torch.sin(50 * f))
    >>> round(guide.loc[0].item(), 1)     # delta
    1.0
    """

    loc: Tensor
    scale_tril: Tensor
    source_probs: Tensor

    def __init__(self, model: RECaST) -> None:
        super().__init__()
        if not isinstance(model, RECaST):
            raise TypeError(f"RECaSTGuide: the model must be a RECaST, not a {type(model).__name__}")
        self._model = (model,)
        size, count = len(model.priors), model.source_count
        self.register_buffer("loc", torch.zeros(size, dtype=torch.double))
        self.register_buffer("scale_tril", torch.eye(size, dtype=torch.double))
        if count > 1:
            self.register_buffer("source_probs", torch.full((count,), 1 / count, dtype=torch.double))

    @property
    def model(self) -> RECaST:
        """The model that the guide approximates the posterior of."""
        return self._model[0]

    def fit(
        self, x: Inputs, y: Tensor, *, adapt: bool = True, generator: torch.Generator | None = None
    ) -> "RECaSTGuide":
        """Fit the mode, the curvature and, with `adapt`, the moments, in a second or so.

        Args:
            x: inputs of the source for all target data.
            y: targets [batch].
            adapt: match the posterior's moments; else the Laplace approximation stays.
            generator: of the proposals.

        Raises:
            ValueError: data that RECaST refuses; a log density that is finite at no start.
        """
        density = Density(self.model, x, y)
        self.loc, self.scale_tril = laplace(density)
        for _ in range(ROUNDS if adapt else 0):
            drawn = self._propose(density, PROPOSALS, generator)
            self.loc, self.scale_tril = _moments(drawn, self.loc, self.scale_tril)
        if self.model.source_count > 1:
            z = torch.randn(SOURCES, len(self.loc), dtype=torch.double, generator=generator)
            self.source_probs = density.source_weights(self.loc + z @ self.scale_tril.mT)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every number; the arguments are the model's and are not used."""
        joint = dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)
        whole = pyro.sample(prefix_of(self.model.name) + "recast", joint, infer={"is_auxiliary": True})
        values = in_numbers(self.model, whole)
        delta, *others = values.items()  # delta alone is stretched
        stretched = {delta[0]: dist.Delta(delta[1], -_log_stretch(self.model, whole))}
        points = stretched | {site: dist.Delta(value) for site, value in others}
        if self.model.source_count > 1:
            points[prefix_of(self.model.name) + "source"] = dist.Categorical(self.source_probs)
        return {site: pyro.sample(site, point) for site, point in points.items()}

    def corrected(
        self, x: Inputs, y: Tensor, draws: int = 1000, *, generator: torch.Generator | None = None
    ) -> "CorrectedDraws":
        """Draws of the posterior, resampled by Pareto-smoothed importance weights.

        Proposals are Student-t kernels around weighted draws from the guide, and so follow a
        posterior that is skewed or bent.

        Args:
            x: inputs of the source for all target data.
            y: targets [batch].
            draws: how many; three times as many proposals are made.
            generator: of proposals and resampling.

        Raises:
            ValueError: data that RECaST refuses.
            ImportError: ArviZ, which smooths the weights, is not installed.

        Warns:
            UserWarning: the target's data leave fewer than two effective draws of an uncertain
                source of ten or more.
        """
        from bayesnn.arviz import pareto_smoothed

        density = Density(self.model, x, y)
        drawn = self._around(density, self._propose(density, FIRST, generator), 3 * draws, generator)
        log_weights, khat = pareto_smoothed(drawn.log_weights.numpy())
        weights = torch.as_tensor(log_weights).exp()
        chosen = torch.multinomial(weights, draws, replacement=True, generator=generator)
        sources = float(1 / density.source_weights(drawn.values[chosen]).square().sum())
        if sources < FEWEST_SOURCES and self.model.source_count >= 5 * FEWEST_SOURCES:
            warnings.warn(
                f"RECaSTGuide: the target's data leave {sources:.1f} effective draws of the source's "
                f"{self.model.source_count}; its uncertainty is then hardly in the posterior. Give more draws",
                stacklevel=2,
            )
        return CorrectedDraws(
            self.model,
            with_source(
                self.model, in_numbers(self.model, drawn.values[chosen]), density.f, density.y, generator=generator
            ),
            khat,
            float(1 / weights.square().sum()),
            sources,
        )

    def _propose(self, density: "Density", count: int, generator: torch.Generator | None) -> "_Proposals":
        """Student-t draws around the guide, with log p - log q."""
        values = self.loc + _student_t(count, len(self.loc), generator) @ self.scale_tril.mT
        q = dist.MultivariateStudentT(torch.tensor(TAIL, dtype=torch.double), self.loc, self.scale_tril)
        return _Proposals(values, density(values) - q.log_prob(values))

    def _around(
        self, density: "Density", first: "_Proposals", count: int, generator: torch.Generator | None
    ) -> "_Proposals":
        """Student-t kernels around draws of the posterior, whatever its shape,
        and for some a wide Student-t.
        """
        size = first.values.shape[1]
        weights = _truncated(first.log_weights)
        centres = first.values[torch.multinomial(weights, KERNELS, replacement=True, generator=generator)]
        mean, root = _moments(first, self.loc, self.scale_tril)
        # Silverman's rule
        narrow = WIDTH * root * (4 / (KERNELS * (size + 2))) ** (1 / (size + 4))
        wide, df = int(WIDE * count), torch.tensor(TAIL, dtype=torch.double)
        t = _student_t(count, size, generator)
        around = centres[torch.arange(count - wide) % KERNELS]
        values = torch.cat([mean + 2 * t[:wide] @ root.mT, around + t[wide:] @ narrow.mT])
        kernels = dist.MultivariateStudentT(df, centres, narrow)
        near = torch.cat([kernels.log_prob(part.unsqueeze(1)).logsumexp(1) for part in values.split(500)])
        far = dist.MultivariateStudentT(df, mean, 2 * root).log_prob(values)
        log_q = torch.logaddexp(near + math.log((1 - WIDE) / KERNELS), far + math.log(WIDE))
        return _Proposals(values, density(values) - log_q)

    def _fingerprint(self) -> str:
        return ", ".join(self.model.sites)


@dataclass(frozen=True, eq=False)
class CorrectedDraws(Mapping[str, Tensor]):
    """The result of `RECaSTGuide.corrected`: draws {site: [draw]} that know their model.

    `predictive` and `to_arviz` take them.

    Attributes:
        model: whose posterior the draws are of.
        draws: {site: [draw]}: draws of the posterior, equally weighted.
        khat: tail index of the importance weights; below 0.7 the draws can be trusted.
        effective: effective number of the proposals, (sum w)^2 / sum w^2.
        effective_sources: effective number of an uncertain source's draws, 1 / sum_s p(s | y)^2; 1
            for another source.
    """

    model: RECaST
    draws: Mapping[str, Tensor]
    khat: float
    effective: float
    effective_sources: float = 1.0

    @override
    def __getitem__(self, site: str) -> Tensor:
        return self.draws[site]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self.draws)

    @override
    def __len__(self) -> int:
        return len(self.draws)


@dataclass(frozen=True, eq=False)
class _Proposals:
    values: Tensor
    log_weights: Tensor


class Density:
    """log p(u, y) in nats at coordinates u [*draw, number], those in which the guide is normal."""

    def __init__(self, model: RECaST, x: Inputs, y: Tensor) -> None:
        self.model = model
        # for two or three numbers no other device pays
        self.f = model.training_predictions(x).cpu()
        self.y = model.checked_target(self.f, y.cpu())

    def __call__(self, u: Tensor) -> Tensor:
        """The log density, [*draw]."""
        parts = [u] if u.dim() < 2 else u.split(max(1, 500 // self.model.source_count))
        densities = [
            self.model.log_joint(in_numbers(self.model, part), self.f, self.y) + _log_stretch(self.model, part)
            for part in parts
        ]
        return densities[0] if u.dim() < 2 else torch.cat(densities)

    @torch.no_grad()
    def source_weights(self, u: Tensor) -> Tensor:
        """p(source = s | y), [S], over draws u [draw, number] of the posterior."""
        model = self.model
        if model.source_count == 1:
            return self.f.new_ones(1)
        parts = u.split(max(1, 500 // model.source_count))
        each = [source_weights(model, in_numbers(model, part), self.f, self.y) for part in parts]
        return torch.cat(each).mean(0)


def in_numbers(model: RECaST, u: Tensor) -> dict[str, Tensor]:
    """{site: value [*draw]} at coordinates u: delta = u_0 (1 + gamma) for
    labels, else u itself.
    """
    values = dict(zip(model.number_sites, u.unbind(-1), strict=True))
    if not model.with_noise:
        delta = next(iter(values))
        values[delta] = u[..., 0] * (1 + u[..., 1].exp())
    return values


def _log_stretch(model: RECaST, u: Tensor) -> Tensor:
    """log |d delta / d u_0|."""
    return torch.zeros_like(u[..., 0]) if model.with_noise else F.softplus(u[..., 1])


def laplace(density: Density) -> tuple[Tensor, Tensor]:
    """The best mode from several starts, and the root of the inverse negative Hessian there.

    The root is no wider than the prior.
    """
    best, highest = None, -float("inf")
    for start in _starts(density):
        mode = _climb(density, start)
        value = float(density(mode))
        if value > highest:
            best, highest = mode, value
    if best is None:
        raise ValueError("RECaSTGuide: the log density is finite at no start; are x and y finite and of similar size?")
    spread = _prior_spread(density)
    hessian = torch.autograd.functional.hessian(lambda v: -density(v), best)
    # the prior's is the identity
    curvature, basis = torch.linalg.eigh(spread * hessian * spread.unsqueeze(1))
    root = spread.unsqueeze(1) * basis * curvature.clamp(min=1).rsqrt()
    return best, torch.linalg.cholesky(root @ root.mT)


def _prior_spread(density: Density) -> Tensor:
    """Standard deviations of the priors; the published ones where a prior has none."""
    pairs = [(float(prior.variance), float(PRIORS[number].variance)) for number, prior in density.model.priors.items()]
    return density.f.new_tensor([own if math.isfinite(own) else published for own, published in pairs]).sqrt()


def _starts(density: Density) -> list[Tensor]:
    """Starts with delta by least squares and with much, or little, of the misfit in the effect."""
    f, y = density.f, density.y
    f = f.mean(1) if density.model.source_count > 1 else f
    if not density.model.with_noise:
        return [torch.tensor([ratio, gamma], dtype=torch.double) for ratio in (1.0, 0.3) for gamma in (0.0, -3.0)]
    delta = (f @ y) / (f @ f)
    spread = (y - delta * f).abs().median().clamp(min=1e-6 * float(y.abs().max()) + 1e-12).log()
    typical = f.abs().median().clamp(min=1e-12).log()
    return [torch.stack([delta, spread - typical - less, spread - more]) for less, more in ((0.5, 0.5), (4.0, 0.0))]


def _climb(density: Density, start: Tensor) -> Tensor:
    """L-BFGS to the maximum: the best point seen, since a line search may run away to where
    nothing is finite.
    """
    value = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([value], max_iter=200, tolerance_grad=1e-8, line_search_fn="strong_wolfe")
    best, least = start, math.inf

    def closure() -> Tensor:
        nonlocal best, least
        if not bool(value.isfinite().all()):
            raise FloatingPointError
        optimizer.zero_grad()
        loss = -density(value)
        loss.backward()
        if loss.item() < least:
            best, least = value.detach().clone(), loss.item()
        return loss

    with suppress(FloatingPointError):
        optimizer.step(closure)
    return best


def _moments(drawn: _Proposals, loc: Tensor, scale_tril: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance root of the posterior, estimated with truncated weights; the old ones
    where none count.
    """
    weights = _truncated(drawn.log_weights)
    mean = weights @ drawn.values
    centred = drawn.values - mean
    covariance = (centred * weights.unsqueeze(-1)).mT @ centred
    root, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed) or 1 / float(weights.square().sum()) < 20:
        return loc, scale_tril
    return mean, root


def _truncated(log_weights: Tensor) -> Tensor:
    """Weights that sum to 1, the largest cut off: Ionides (2008)."""
    weights = (log_weights - log_weights.max()).exp()
    weights = weights.clamp(max=float(weights.mean()) * len(weights) ** 0.5)
    return weights / weights.sum()


def _student_t(count: int, size: int, generator: torch.Generator | None) -> Tensor:
    """Standard multivariate Student-t draws, [count, size]."""
    z = torch.randn(count, size, dtype=torch.double, generator=generator)
    chi = torch.randn(count, int(TAIL), dtype=torch.double, generator=generator).square().sum(-1)
    return z / (chi / TAIL).sqrt().unsqueeze(-1)
