"""`PredictiveDistribution`: the likelihood mixed uniformly over draws, what every method ends in."""

import math

import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.predict.cdf import component_cdf


class PredictiveDistribution(dist.TorchDistribution):
    """p(y_i) = 1/S sum_s p_s(y_i): a uniform mixture of `components` over their first axis.

    Metrics, plots and ArviZ groups are computed from it. Any library's predictions make one: for example
    `PredictiveDistribution(Categorical(probs))` with probs [draw, batch, class].

    Args:
        components: batch shape [draw, batch], any event.

    Shapes: y is [*sample, batch, *event]. Units: log densities, entropies and information in nats; means in units of y,
    variances in its square.

    Raises:
        ValueError: the components have no [draw, batch] axes.
        NotImplementedError: a quantity that the components' family does not have (a mean of Cauchy tails, a cdf of labels).

    >>> p = PredictiveDistribution(dist.Normal(torch.tensor([[-1.0], [1.0]]), 1.0))
    >>> p.mean, p.variance, p.epistemic_variance
    (tensor([0.]), tensor([2.]), tensor([1.]))
    """

    arg_constraints: dict = {}
    has_rsample = False

    def __init__(self, components: dist.TorchDistribution) -> None:
        if len(components.batch_shape) != 2:
            raise ValueError(
                f"PredictiveDistribution: the components need batch axes [draw, batch], they have {tuple(components.batch_shape)}"
            )
        self.components = components
        super().__init__(components.batch_shape[1:], components.event_shape, validate_args=False)

    def __repr__(self) -> str:
        """The family of the components and their number."""
        family = type(_base(self.components)).__name__
        return f"PredictiveDistribution({family}, draws: {self.draws}, batch: {self.batch_shape[0]}, event: {tuple(self.event_shape)})"

    @property
    def draws(self) -> int:
        """How many components."""
        return self.components.batch_shape[0]

    @property
    def support(self):  # type: ignore[no-untyped-def]
        """That of the components."""
        return self.components.support

    @property
    def probs(self) -> Tensor:
        """Class probabilities 1/S sum_s p_s, [batch, *event, class]; labels and binary targets only."""
        return self.component_probs.mean(0)

    @property
    def component_probs(self) -> Tensor:
        """Class probabilities of every draw, [draw, batch, *event, class]; for a binary target P(0), P(1)."""
        base = _base(self.components)
        if isinstance(base, dist.Categorical):
            return base.probs
        if isinstance(base, dist.Bernoulli):
            return torch.stack([1 - base.probs, base.probs], -1)
        raise NotImplementedError(f"{type(base).__name__} has no class probabilities; use mean, variance, cdf or icdf")

    @property
    def mean(self) -> Tensor:
        """E[y], [batch, *event]."""
        return self._moment("mean").mean(0)

    @property
    def aleatoric_variance(self) -> Tensor:
        """E_s[Var[y | draw s]], [batch, *event]: the noise that more training data would not remove."""
        return self._moment("variance").mean(0)

    @property
    def epistemic_variance(self) -> Tensor:
        """Var_s[E[y | draw s]], [batch, *event]: the draws' disagreement about the mean."""
        return self._moment("mean").var(0, correction=0)

    @property
    def variance(self) -> Tensor:
        """Var[y] = aleatoric + epistemic, [batch, *event]."""
        return self.aleatoric_variance + self.epistemic_variance

    def log_prob(self, value: Tensor) -> Tensor:
        """log 1/S sum_s p_s(y), [*sample, batch]."""
        each = self.components.log_prob(value.unsqueeze(-2 - self.event_dim))
        return each.logsumexp(-2) - math.log(self.draws)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """y, [*sample, batch, *event]: a component at random for every example, then y from it."""
        shape = torch.Size(sample_shape)
        everything = self.components.sample(shape)  # [*sample, draw, batch, *event]
        device = everything.device
        chosen = torch.randint(self.draws, (*shape, 1, *self.batch_shape), device=device)
        index = chosen.reshape(chosen.shape + (1,) * self.event_dim).expand(chosen.shape + self.event_shape)
        return everything.gather(len(shape), index).squeeze(len(shape))

    def entropy(self, samples: int = 200) -> Tensor:
        """H[p] in nats, [batch]: exact for labels and single binary targets, otherwise a Monte-Carlo mean of -log p(y)."""
        if self._is_finite():
            return _entropy(self.probs).reshape(*self.batch_shape, -1).sum(-1)
        return -self.log_prob(self.sample(torch.Size([samples]))).mean(0)

    def mutual_information(self, samples: int = 200) -> Tensor:
        """I[y; draw] = H[p] - 1/S sum_s H[p_s] in nats, [batch]: the epistemic part of the entropy."""
        if self._is_finite():
            return self.entropy() - _entropy(self.component_probs).reshape(self.draws, *self.batch_shape, -1).sum(-1).mean(0)
        return self.entropy(samples) - self.components.entropy().mean(0)

    def cdf(self, value: Tensor) -> Tensor:
        """P(y <= value) for each target, [*sample, batch, *event]: at the observed y it is the PIT."""
        value = value.unsqueeze(-2 - self.event_dim)
        return component_cdf(_base(self.components), value).mean(-2 - self.event_dim)

    def icdf(self, level: Tensor | float) -> Tensor:
        """The quantile at `level` in (0, 1) for each target, [batch, *event], by bisection; counts: the smallest y."""
        level = torch.as_tensor(level)
        if not bool(((level > 0) & (level < 1)).all()):
            raise ValueError(f"icdf: levels lie strictly between 0 and 1, not {level.tolist()}")
        return self._bisect(level)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The equal-tailed interval of probability `level`: (lower, upper), each [batch, *event]."""
        return self.icdf((1 - level) / 2), self.icdf((1 + level) / 2)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "PredictiveDistribution":
        """The same mixture for a larger batch."""
        return PredictiveDistribution(self.components.expand(torch.Size([self.draws, *batch_shape])))

    def _is_finite(self) -> bool:
        """Whether the distribution is a table of class probabilities (several binary targets are not: they are dependent)."""
        base = _base(self.components)
        if isinstance(base, dist.Categorical):
            return not self.event_shape
        return isinstance(base, dist.Bernoulli) and self.event_shape.numel() == 1

    def _moment(self, name: str) -> Tensor:
        base = _base(self.components)
        if isinstance(base, dist.Categorical):
            raise NotImplementedError(f"labels have no {name}; use probs")
        value: Tensor = getattr(base, name)
        if not bool(torch.isfinite(value).all()):
            raise NotImplementedError(f"{type(base).__name__} has no finite {name} here; use icdf(0.5) and interval(...)")
        return value

    def _bisect(self, level: Tensor) -> Tensor:
        base = _base(self.components)
        counts = base.support.is_discrete
        centre, spread = _centre(base)
        low, high = (centre - spread).amin(0), (centre + spread).amax(0)
        for _ in range(200):  # widen until the levels lie inside
            outside_low, outside_high = self.cdf(low) > level, self.cdf(high) < level
            if not bool((outside_low | outside_high).any()):
                break
            width = high - low
            low, high = torch.where(outside_low, low - width, low), torch.where(outside_high, high + width, high)
        else:
            raise RuntimeError("icdf: no bracket of the quantile was found")
        if counts:
            low, high = low.floor().clamp(min=-1), high.ceil()
        for _ in range(100):
            middle = (low + high) / 2
            if counts:
                middle = middle.floor()
            below = self.cdf(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            if bool((high - low <= (1 if counts else 4 * torch.finfo(low.dtype).eps * high.abs().clamp(min=1e-30))).all()):
                break
        return high if counts else (low + high) / 2


def _base(distribution: dist.TorchDistribution) -> dist.TorchDistribution:
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    return distribution


def _centre(base: dist.TorchDistribution) -> tuple[Tensor, Tensor]:
    """A location and a positive width from which a bracket of the quantiles grows; no moments are needed."""
    if hasattr(base, "loc"):
        return base.loc, 4 * base.scale.expand_as(base.loc)
    return base.mean, 4 * base.stddev + 1


def _entropy(probs: Tensor) -> Tensor:
    return -torch.xlogy(probs, probs).sum(-1)
