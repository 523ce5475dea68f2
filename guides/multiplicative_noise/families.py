"""How the variances of a network's weights are shared: families of normal
posteriors for moment propagation.
"""

from dataclasses import dataclass

import torch
from torch import Size, Tensor, nn

from bayesnn.guides.multiplicative_noise.squares import squared
from bayesnn.moments import Moments, Multiplicative
from bayesnn.moments.value import of_inputs


@dataclass(frozen=True)
class Layout:
    """A parameter of a network.

    Attributes:
        shape: of the whole parameter.
        index: flat indices of its random entries, None for all.
        axis: of its inputs; None for a vector, which has none (bias, scale of a normalisation).
        groups: of a convolution.
    """

    shape: Size
    index: Tensor | None
    axis: int | None
    groups: int

    @property
    def inputs(self) -> int:
        """How many inputs the parameter multiplies; 1 for a vector."""
        return 1 if self.axis is None else self.shape[self.axis] * (self.groups if self.axis == 1 else 1)

    def spread(self, numbers: Tensor) -> Tensor:
        """One number for each input where it broadcasts to the whole parameter."""
        return numbers if self.axis is None else of_inputs(numbers, self.shape, self.axis, self.groups)

    def entries(self, whole: Tensor) -> Tensor:
        """The random entries of a tensor of the parameter's shape (or one that
        broadcasts to it).
        """
        if self.index is None:
            return whole.expand(self.shape)
        return whole.expand(self.shape).reshape(-1)[self.index.to(whole.device)]


def layout(net: nn.Module, name: str, index: Tensor | None) -> Layout:
    """The layout of one parameter: what its layer does with it. A matrix of an
    unknown layer is [out, in].
    """
    path, _, _ = name.rpartition(".")
    parameter, owner = net.get_parameter(name), net.get_submodule(path)
    transposed = isinstance(owner, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Embedding))
    groups = int(getattr(owner, "groups", 1)) if isinstance(owner, nn.modules.conv._ConvNd) else 1
    axis = None if parameter.dim() < 2 else (0 if transposed else 1)
    return Layout(parameter.shape, index, axis, groups)


@dataclass(frozen=True)
class PerInput:
    """w_ij ~ N(W_ij, a_j (W_ij^2 + floor^2)): one relative variance for each input feature or
    channel (MNVI).

    Multiplying input j by noise of mean 1 and variance a_j has the same moments. Vectors (biases,
    scales of normalisations), which have no input, share one absolute variance each; those outside
    the subset stay as the network has them.

    Args:
        noise: the a_j at the start; softplus(-3) in the paper.
        variance: of vectors at the start.
        floor: in units of weights, where a dead weight's KL divergence stops growing.

    Reference: Schmitt, Roth (2021), Sampling-free variational inference for neural networks with
    multiplicative activation noise.
    """

    noise: float = 0.0486
    variance: float = 1e-4
    floor: float = 1e-5

    def start(self, of: Layout) -> Tensor:
        """The positive numbers of one parameter."""
        return torch.full((of.inputs,), self.variance if of.axis is None else self.noise)

    def entries(self, of: Layout, loc: Tensor, numbers: Tensor) -> Tensor:
        """The variance of every random entry."""
        if of.axis is None:
            return of.entries(numbers) if of.index is not None else numbers.expand(of.shape)
        return of.entries(of.spread(numbers)) * (loc.square() + self.floor**2)

    def moments(self, of: Layout, loc: Tensor, numbers: Tensor) -> Moments:
        """The parameter, all of which is random."""
        if of.axis is None:
            return Moments(loc, numbers.expand(of.shape))
        if not torch.is_grad_enabled():
            square = torch.addcmul(loc.new_tensor(self.floor**2), loc, loc)
            return Multiplicative(loc, numbers, square, axis=of.axis, groups=of.groups)
        squares = squared(loc, self.floor, of.axis, of.groups)
        weight = Multiplicative(loc, numbers, squares.square, axis=of.axis, groups=of.groups)
        weight.squares = squares
        return weight


@dataclass(frozen=True)
class PerInputVariance:
    """w_ij ~ N(W_ij, s_j): one absolute variance for each input feature or channel; vectors share
    one each.

    Args:
        variance: at the start.

    Reference: Schmitt, Roth (2021), where it is the shared mean-field baseline.
    """

    variance: float = 1e-4

    def start(self, of: Layout) -> Tensor:
        """The positive numbers of one parameter."""
        return torch.full((of.inputs,), self.variance)

    def entries(self, of: Layout, loc: Tensor, numbers: Tensor) -> Tensor:
        """The variance of every random entry."""
        return of.entries(of.spread(numbers))

    def moments(self, of: Layout, loc: Tensor, numbers: Tensor) -> Moments:
        """The parameter, all of which is random."""
        return Moments(loc, self.entries(of, loc, numbers))


@dataclass(frozen=True)
class PerWeight:
    """w_ij ~ N(W_ij, s_ij): a variance for each weight, the mean-field family trained without
    draws.

    Args:
        variance: at the start.

    Reference: Haussmann, Hamprecht, Kandemir (2019), Sampling-free variational inference of
    Bayesian neural networks by variance backpropagation.
    """

    variance: float = 1e-4

    def start(self, of: Layout) -> Tensor:
        """The positive numbers of one parameter."""
        return torch.full((of.shape.numel() if of.index is None else len(of.index),), self.variance)

    def entries(self, of: Layout, loc: Tensor, numbers: Tensor) -> Tensor:
        """The variance of every random entry."""
        return numbers.reshape(loc.shape)

    def moments(self, of: Layout, loc: Tensor, numbers: Tensor) -> Moments:
        """The parameter, all of which is random."""
        return Moments(loc, numbers.reshape(loc.shape))


Family = PerInput | PerInputVariance | PerWeight
