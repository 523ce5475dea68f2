"""`PredictiveDistribution`: the likelihood mixed uniformly over draws, what
every method ends in.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from pyro import distributions as dist
from torch import Size, Tensor
from torch import distributions as torch_dist
from typing_extensions import override

from bayesnn.predict.cdf import component_cdf
from bayesnn.predict.quantile import quantile
from bayesnn.predict.shortest import shortest
from bayesnn.sites import base_of

NUMBERS = 2**24
"""How many numbers are drawn at a time."""


class PredictiveDistribution(dist.TorchDistribution):
    """p(y_i) = 1/S sum_s p_s(y_i): a uniform mixture of `components` over their first axis.

    Metrics, plots and ArviZ groups are computed from it. Any library's predictions make one: for
    example `PredictiveDistribution(Categorical(probs))` with probs [draw, batch, class], of Pyro's
    or torch's distributions.

    Args:
        components: batch shape [draw, batch], any event.

    Shapes: y is [*sample, batch, *event]. Units: log densities, entropies and information in nats;
    means in units of y, variances in its square.

    Raises:
        ValueError: the components have no [draw, batch] axes.
        NotImplementedError: a quantity that the components' family does not have (a mean of Cauchy
            tails, a cdf of labels).

    >>> p = PredictiveDistribution(dist.Normal(torch.tensor([[-1.0], [1.0]]), 1.0))
    >>> p.mean, p.variance, p.epistemic_variance
    (tensor([0.]), tensor([2.]), tensor([1.]))
    """

    arg_constraints: ClassVar[dict] = {}
    has_rsample = False

    def __init__(self, components: torch_dist.Distribution) -> None:
        if len(components.batch_shape) != 2:
            raise ValueError(
                f"PredictiveDistribution: the components need batch axes [draw, batch], they have "
                f"{tuple(components.batch_shape)}"
            )
        self.components = components
        super().__init__(Size(components.batch_shape[1:]), components.event_shape, validate_args=False)

    def __repr__(self) -> str:
        """The family of the components and their number."""
        shapes = f"draws: {self.draws}, batch: {self.batch_shape[0]}, event: {tuple(self.event_shape)}"
        return f"PredictiveDistribution({type(base_of(self.components)).__name__}, {shapes})"

    @property
    def draws(self) -> int:
        """The number of components."""
        return self.components.batch_shape[0]

    @property
    @override
    def support(self) -> Any:
        return self.components.support

    @property
    def probs(self) -> Tensor:
        """Class probabilities 1/S sum_s p_s, [batch, *event, class]; labels and
        binary targets only.
        """
        return self.component_probs.mean(0)

    @property
    def component_probs(self) -> Tensor:
        """Class probabilities of every draw, [draw, batch, *event, class]; for
        a binary target P(0), P(1).
        """
        base = base_of(self.components)
        if isinstance(base, torch_dist.Categorical):
            return base.probs
        if isinstance(base, torch_dist.Bernoulli):
            return torch.stack([1 - base.probs, base.probs], -1)
        raise NotImplementedError(f"{type(base).__name__} has no class probabilities; use mean, variance, cdf or icdf")

    @property
    def mean(self) -> Tensor:
        """E[y], [batch, *event]."""
        return self._moment("mean").mean(0)

    @property
    def aleatoric_variance(self) -> Tensor:
        """E_s[Var[y | draw s]], [batch, *event]: the noise that more training
        data would not remove.
        """
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
        return self._log_probs(value).logsumexp(-2) - math.log(self.draws)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """y, [*sample, batch, *event]: a component at random for every example, then y from it."""
        shape = Size(sample_shape)
        drawn = torch.cat([y for y, _ in self._draw(shape.numel())])
        return drawn.reshape(shape + self.batch_shape + self.event_shape)

    def entropy(self, samples: int = 200) -> Tensor:
        """H[p] in nats, [batch]: exact for labels and one binary target, otherwise the mean of
        -log p(y) of samples.
        """
        if self._is_finite():
            return _entropy(self.probs).reshape(*self.batch_shape, -1).sum(-1)
        return -sum((self.log_prob(y).sum(0) for y, _ in self._draw(samples)), torch.zeros(())) / samples

    def mutual_information(self, samples: int = 200) -> Tensor:
        """I[y; draw] = H[p] - 1/S sum_s H[p_s] in nats, [batch]: the epistemic part of the
        entropy, 0 to log S.

        Exact where the entropy is, otherwise the Monte-Carlo mean of log p_s(y) - log p(y) over
        pairs of a draw and its y. For a map of pixels it is that of the whole map; for each pixel
        use `component_probs`.
        """
        if self._is_finite():
            each = _entropy(self.component_probs).reshape(self.draws, *self.batch_shape, -1).sum(-1)
            return (self.entropy() - each.mean(0)).clamp(min=0)
        total: Tensor | float = 0.0
        for y, chosen in self._draw(samples):
            each = self._log_probs(y)
            own = each.gather(-2, chosen.unsqueeze(-2)).squeeze(-2)
            total = total + (own - each.logsumexp(-2) + math.log(self.draws)).sum(0)
        return torch.as_tensor(total / samples).clamp(min=0)

    def cdf(self, value: Tensor) -> Tensor:
        """P(y <= value) for each target, [*sample, batch, *event]: at the
        observed y it is the PIT.
        """
        return self.component_cdf(value).mean(-2 - self.event_dim)

    def component_cdf(self, value: Tensor) -> Tensor:
        """P(y <= value) under every draw, [*sample, draw, batch, *event]."""
        return component_cdf(base_of(self.components), value.unsqueeze(-2 - self.event_dim))

    def icdf(self, level: Tensor | float) -> Tensor:
        """The quantile at `level` in (0, 1) for each target, [batch, *event], by bracketing;
        counts: the smallest y.
        """
        return quantile(self.cdf, base_of(self.components), level)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The equal-tailed interval of probability `level`: (lower, upper), each
        [batch, *event].
        """
        return self.icdf((1 - level) / 2), self.icdf((1 + level) / 2)

    @torch.no_grad()
    def highest_density_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The shortest interval of probability `level`: (lower, upper), each [batch, *event].

        Densities are equal at its ends where it does not end at a bound of the support. Where the
        mixture has one mode it holds the points of highest density; where it has several it is
        still one interval, the shortest, and the points of highest density may be a union of
        several.

        Raises:
            ValueError: a level outside (0, 1).
            NotImplementedError: labels and counts.

        >>> p = PredictiveDistribution(dist.Exponential(torch.ones(1, 1)))
        >>> [round(end.item(), 4) for end in p.highest_density_interval(0.9)]   # 0 and log 10
        [0.0, 2.3026]
        """
        return shortest(base_of(self.components), level)

    def probs_interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Equal-tailed quantiles of `component_probs`, each [batch, *event, class].

        They show how far the draws agree on `probs`.

        A credible interval of the probability itself, not of y. Labels and binary targets only;
        linear between draws.
        """
        if not 0 < level < 1:
            raise ValueError(f"probs_interval: the level lies strictly between 0 and 1, not {level}")
        ordered = self.component_probs.sort(0).values
        lower, upper = (_between(ordered, q) for q in ((1 - level) / 2, (1 + level) / 2))
        return lower, upper

    @override
    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "PredictiveDistribution":
        return PredictiveDistribution(self.components.expand(Size([self.draws, *batch_shape])))

    def _log_probs(self, value: Tensor) -> Tensor:
        """log p_s(y), [*sample, draw, batch]."""
        return self.components.log_prob(value.unsqueeze(-2 - self.event_dim))

    def _draw(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`count` times y [n, batch, *event] and the component that it came
        from, [n, batch], n at a time.
        """
        size = self.draws * (self.batch_shape + self.event_shape).numel()
        step = max(1, NUMBERS // max(size, 1))
        for start in range(0, max(count, 1), step):
            n = min(step, count - start)
            everything = self.components.sample(Size([n]))  # [n, draw, batch, *event]
            chosen = torch.randint(self.draws, (n, *self.batch_shape), device=everything.device)
            index = chosen.reshape(n, 1, *self.batch_shape, *(1,) * self.event_dim)
            yield everything.gather(1, index.expand(n, 1, *self.batch_shape, *self.event_shape)).squeeze(1), chosen

    def _is_finite(self) -> bool:
        """Whether it is a table of class probabilities.

        Several binary targets are not one, as the draws make them dependent.
        """
        base = base_of(self.components)
        if isinstance(base, torch_dist.Categorical):
            return not self.event_shape
        return isinstance(base, torch_dist.Bernoulli) and self.event_shape.numel() == 1

    def _moment(self, name: str) -> Tensor:
        base = base_of(self.components)
        if isinstance(base, torch_dist.Categorical):
            raise NotImplementedError(f"labels have no {name}; use probs")
        value: Tensor = getattr(base, name)
        if not bool(torch.isfinite(value).all()):
            family = type(base).__name__
            raise NotImplementedError(f"{family} has no finite {name} here; use icdf(0.5) and interval(...)")
        return value


def _between(ordered: Tensor, level: float) -> Tensor:
    """The quantile of sorted draws along the first axis, linear between them."""
    place = level * (len(ordered) - 1)
    below = int(place)
    return torch.lerp(ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below)


def _entropy(probs: Tensor) -> Tensor:
    return -torch.xlogy(probs, probs).sum(-1)
