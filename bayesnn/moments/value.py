"""A tensor whose entries are random: their means and variances, carried through a network that
knows nothing of it.
"""

from typing import Any

import torch
from torch import Tensor

from bayesnn.moments.table import RandomTensor
from bayesnn.moments.uses import Entries, Uses


class Moments(RandomTensor):
    """A random tensor with independent entries, known by mean and variance; for a network it is a
    tensor.

    Every torch function that meets one looks up its rule in `MOMENT_RULES` and returns another. It
    looks like its mean in all that does not depend on the variance (shape, dtype, device).
    In-place operations change it, but not what shares its storage: a view that was overtaken so is
    refused where it is used.

    Attributes:
        loc: the mean, of any shape, with its graph (`mean` is the method that averages).
        variance: of the same shape, in the square of the mean's unit.

    >>> a = Moments(torch.tensor([0.0, 1.0]), torch.ones(2))
    >>> 3 * a + 1
    Moments(loc=tensor([1., 4.]), variance=tensor([9., 9.]))
    """

    loc: Tensor
    _variance: Tensor
    _writes: list[int]  # of all that shares storage: how often one of them was written to
    _seen: int
    is_weight: bool = False  # a parameter of the network, independent of every activation
    uses: Uses | None = None  # of the parameter that it is, or is a view of
    entries: Entries | None = None  # of the parameter; None for all in their places
    joint: bool = False  # whether covariances are known

    @staticmethod
    def __new__(cls, loc: Tensor, variance: Tensor) -> "Moments":
        """Nothing is copied."""
        new: Moments = Tensor._make_subclass(cls, loc.detach())
        new.loc, new._variance, new._writes, new._seen = loc, variance, [0], 0
        return new

    @property
    def variance(self) -> Tensor:
        """Of every entry."""
        return self._variance

    def shared(self, loc: Tensor, variance: Tensor) -> "Moments":
        """Other moments that are a view of these, as far as in-place operations go."""
        new = Moments(loc, variance)
        new._writes, new._seen = self._writes, self._seen
        return new

    def viewed(self, loc: Tensor, variance: Tensor, move: Entries, *, distinct: bool) -> "Moments":
        """As `shared`; of a parameter they are entries of it still.

        Args:
            loc: the mean of the view.
            variance: of its entries.
            move: what takes them out of a tensor of this shape.
            distinct: whether no entry can be there twice, so that a weight's view is a weight.
        """
        new = self.shared(loc, variance)
        if self.uses is not None:
            before = self.entries
            new.uses = self.uses
            new.entries = move if before is None else lambda places: move(before(places))
        new.is_weight = self.is_weight and distinct
        return new

    def used(self, what: str) -> bool:
        """As of `RandomTensor`."""
        if self.uses is None:
            return False
        self.uses.take(what, self.entries or (lambda places: places))
        return True

    def write(self, other: "Moments") -> "Moments":
        """What an in-place operation does: become the other; whatever shares this storage is
        refused from then on.

        So is this one, where it cannot hold what the other knows; the other is what Python then
        binds `x += y` to.
        """
        if other.joint is not self.joint:
            self._writes[0] += 1
            return other
        if other is not self:
            self.loc, self._variance, self.words = other.loc, other.variance, other.words
            self._writes[0] += 1
            self._seen = self._writes[0]
        return self

    @property
    def stale(self) -> bool:
        """Whether something that shares its storage was written to."""
        return self._seen != self._writes[0]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Moments(loc={self.loc}, variance={self.variance})"


class Multiplicative(Moments):
    """A weight w = W (1 + sqrt(a) e), e ~ N(0, 1), with one variance a for each *input*: Var
    w_ij = a_j (W_ij^2 + c).

    Layers with a rule for it need one product with W^2 where any other `Moments` takes two.

    Args:
        loc: W, [out, in / groups, ...], or with `axis` 0 [in, out / groups, ...].
        noise: a, [in].
        squared: W^2 + c, of the shape of W.
        axis: of the inputs, 1 (linear, convolution) or 0 (transposed convolution, embedding).
        groups: of the convolution.
    """

    noise: Tensor
    squared: Tensor
    axis: int
    groups: int
    squares: Any = None  # what its maker wants to find again

    @staticmethod
    def __new__(
        cls, loc: Tensor, noise: Tensor, squared: Tensor, *, axis: int = 1, groups: int = 1
    ) -> "Multiplicative":
        """Nothing is copied."""
        new: Multiplicative = Tensor._make_subclass(cls, loc.detach())
        new.loc, new._writes, new._seen = loc, [0], 0
        new.noise, new.squared, new.axis, new.groups = noise, squared, axis, groups
        return new

    @property
    def variance(self) -> Tensor:
        """a_j (W_ij^2 + c), of the shape of W."""
        return self.squared * of_inputs(self.noise, self.squared.shape, self.axis, self.groups)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(getattr(kind, "joint", False) for kind in types):
            return NotImplemented  # the rules of the activations hold
        return super().__torch_function__(func, types, args, kwargs)


def of_inputs(noise: Tensor, shape: torch.Size, axis: int, groups: int) -> Tensor:
    """One number for each input, [in], where it broadcasts to a weight of this shape."""
    trailing = (1,) * (len(shape) - 2)
    if axis == 0:
        return noise.reshape(-1, 1, *trailing)
    if groups == 1:
        return noise.reshape(1, -1, *trailing)
    rows = noise.reshape(groups, 1, -1).expand(-1, shape[0] // groups, -1)
    return rows.reshape(shape[0], shape[1], *trailing)


def loc_of(value: Any) -> Any:
    """The mean of `Moments`; anything else as it is."""
    return value.loc if isinstance(value, Moments) else value


def variance_of(value: Any) -> Tensor | None:
    """The variance of `Moments`, None of what is certain."""
    return value.variance if isinstance(value, Moments) else None
