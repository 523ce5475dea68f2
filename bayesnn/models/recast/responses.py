"""The responses of RECaST: numbers, labels of two classes, and labels of several classes."""

import warnings
from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from bayesnn.likelihoods import Likelihood
from bayesnn.models.recast.effects import Effect
from bayesnn.models.recast.source import centred_logits, one_each

FEWEST = 3
"""Target examples that the numbers are learned from, at least."""
FEW = 10
"""With fewer, predictions between 0 and 1 may be logits."""


class Response(Protocol):
    """A response: its unknown numbers, the predictions it needs, and its distribution of y.

    Attributes:
        name: of the function in `recast` that makes its model.
        numbers: names of the unknown numbers; the first two are delta and log gamma.
    """

    name: ClassVar[str]
    numbers: ClassVar[tuple[str, ...]]

    def shaped(self, f: Tensor, leading: int, caller: str) -> Tensor:
        """Predictions with their last axes as `outputs` takes them, after so
        many leading ones; refuses others.
        """
        ...

    def check(self, f: Tensor, caller: str, *, linked: bool) -> None:
        """Refuse predictions [batch, ...] that the numbers cannot be learned
        from; warn of wrong scales.
        """
        ...

    def outputs(self, numbers: Sequence[Tensor], f: Tensor) -> Tensor:
        """The likelihood's argument [*draw, batch, out].

        It is made from numbers [*draw, 1] and f [*draw, batch, ...].
        """
        ...

    def likelihood(self, effect: Effect) -> Likelihood:
        """outputs -> distribution of y."""
        ...


class Continuous:
    """y_i = beta_i f_i + sigma e_i."""

    name: ClassVar[str] = "continuous"
    numbers: ClassVar[tuple[str, ...]] = ("delta", "log_gamma", "log_sigma")

    def shaped(self, f: Tensor, leading: int, caller: str) -> Tensor:
        """One prediction an example."""
        return one_each(f, leading, caller)

    def check(self, f: Tensor, caller: str, *, linked: bool) -> None:
        """Refuse predictions that are too few, all zero or constant."""
        _check_varied(f, caller)

    def outputs(self, numbers: Sequence[Tensor], f: Tensor) -> Tensor:
        """The location delta f, the scale gamma |f|, and sigma."""
        delta, log_gamma, log_sigma = numbers
        location = delta * f
        return torch.stack([location, log_gamma.exp() * f.abs(), log_sigma.exp().expand_as(location)], -1)

    def likelihood(self, effect: Effect) -> Likelihood:
        """outputs -> the distribution of numbers."""
        return effect.continuous


class Binary:
    """y_i ~ Bernoulli(expit(beta_i f_i))."""

    name: ClassVar[str] = "binary"
    numbers: ClassVar[tuple[str, ...]] = ("delta", "log_gamma")

    def shaped(self, f: Tensor, leading: int, caller: str) -> Tensor:
        """One prediction an example."""
        return one_each(f, leading, caller)

    def check(self, f: Tensor, caller: str, *, linked: bool) -> None:
        """Refuse predictions that are too few, all zero or constant.

        Warn of those that look like probabilities.
        """
        _check_varied(f, caller)
        if not linked and len(f) >= FEW and bool(((f >= 0) & (f <= 1)).all()):
            _warn_of_probabilities("of the source", "torch.logit", caller)

    def outputs(self, numbers: Sequence[Tensor], f: Tensor) -> Tensor:
        """The location delta f and the scale gamma |f|."""
        delta, log_gamma = numbers
        return torch.stack([delta * f, log_gamma.exp() * f.abs()], -1)

    def likelihood(self, effect: Effect) -> Likelihood:
        """outputs -> the distribution of zeros and ones."""
        return effect.binary


class Categorical:
    """y_i ~ Categorical(softmax(beta_i c_i)), c the centred logits: ours, not in the paper."""

    name: ClassVar[str] = "categorical"
    numbers: ClassVar[tuple[str, ...]] = ("delta", "log_gamma")

    def shaped(self, f: Tensor, leading: int, caller: str) -> Tensor:
        """Logits of two classes or more, centred."""
        return centred_logits(f, leading, caller)

    def check(self, f: Tensor, caller: str, *, linked: bool) -> None:
        """Refuse predictions that are too few, all zero or constant.

        Warn of those that look like centred probabilities.
        """
        _check_varied(f, caller)
        share = 1 / f.shape[-1]
        if not linked and len(f) >= FEW and bool(((f >= -share) & (f <= 1 - share)).all()):
            _warn_of_probabilities("of all classes", "torch.log", caller)

    def outputs(self, numbers: Sequence[Tensor], f: Tensor) -> Tensor:
        """delta, gamma and c, [*draw, batch, 2 + class]."""
        delta, log_gamma = numbers
        batch = torch.broadcast_shapes(delta.shape, f.shape[:-1])
        columns = [number.expand(batch).unsqueeze(-1) for number in (delta, log_gamma.exp())]
        return torch.cat([*columns, f.expand(*batch, f.shape[-1])], -1)

    def likelihood(self, effect: Effect) -> Likelihood:
        """outputs -> the distribution of labels."""
        return effect.categorical


def _check_varied(f: Tensor, caller: str) -> None:
    """Refuse predictions [batch, ...] from which the effect cannot be learned.

    Raises:
        ValueError: fewer than three, all zero, or constant.
    """
    if len(f) < FEWEST:
        raise ValueError(f"{caller}: {len(f)} target examples are too few; at least {FEWEST} are needed")
    if bool((f == 0).all()):
        raise ValueError(f"{caller}: the source predicts 0 on the link scale for every example; nothing scales")
    if bool((f == f[0]).all()):
        value = ", ".join(f"{number:g}" for number in f[0].reshape(-1).tolist())
        raise ValueError(
            f"{caller}: the source predicts {value} for every example; the random effect cannot be told from noise then"
        )


def _warn_of_probabilities(whose: str, link: str, caller: str) -> None:
    warnings.warn(
        f"{caller}: all predictions {whose} lie between 0 and 1, which looks like probabilities; on the link scale "
        f"they would be logits. Give link={link}",
        stacklevel=5,
    )
