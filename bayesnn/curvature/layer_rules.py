"""The layers whose derivatives in their own parameters are known from their input and the
derivative in their output.

Two kinds: `Matrix`, s = W a at every position (linear, convolution, embedding), and `Scale`,
s = w * a elementwise (normalisations). Both may add a bias. A layer's *positions* are the places
of one example that share its weights: pixels of a convolution, words of a sequence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Size, Tensor
from torch.autograd.graph import GradientEdge
from torch.nn import functional as F
from typing_extensions import override


@dataclass(frozen=True)
class Place:
    """Where in a pass a layer was called.

    Attributes:
        edge: of its output in the graph.
        shape: of its output.
        batch: examples of the pass.
        axis: which axis is the batch, or has it as a factor; None before it is known
            (`batch_axis`).
        inner: whether that axis is [something * batch] rather than [batch * something].
    """

    edge: GradientEdge
    shape: Size
    batch: int
    axis: int | None = None
    inner: bool = False

    def by_example(self, tensor: Tensor) -> Tensor:
        """[batch, position, ...] of a tensor whose axes are the layer's.

        Raises:
            ValueError: the batch axis is not known.
        """
        if self.axis is None:
            raise ValueError("which axis is the batch is not known before `batch_axis.settle` has found it")
        if self.inner:
            return tensor.unflatten(self.axis, (-1, self.batch)).movedim(self.axis + 1, 0)
        return tensor.unflatten(self.axis, (self.batch, -1)).movedim(self.axis, 0)


class Use:
    """One call of a layer with random parameters.

    Attributes:
        tensors: {"weight": tensor, "bias": tensor}, those that there are.
        roles: {parameter name: "weight" or "bias"}, of the random ones.
        place: where.
    """

    roles: Mapping[str, str]

    def __init__(self, tensors: Mapping[str, Tensor | None], place: Place) -> None:
        self.tensors = {role: tensor for role, tensor in tensors.items() if tensor is not None}
        self.place = place

    def gradients(self, role: str, g: Tensor, examples: slice = slice(None)) -> Tensor:
        """d / d parameter of every example, [batch, *parameter], from the
        derivative g in the layer's output.
        """
        raise NotImplementedError

    def at_positions(self, g: Tensor) -> Tensor:
        """The derivative in the layer's output, [*axis, entry]: which of the axes is the batch
        does not matter.
        """
        raise NotImplementedError

    def total(self, role: str, g: Tensor) -> tuple[Tensor, Tensor]:
        """d / d parameter summed over examples, of the parameter's shape, and a bound on the sum
        of its terms' sizes.

        Neither depends on which axis is the batch.
        """
        raise NotImplementedError


class Matrix(Use):
    """s = W a: rows a [group, batch, position, in], and derivatives [group, batch, position, out].

    The weight is [group * out, in...] for linear layers and convolutions; that of an embedding is
    W^T.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor | None],
        place: Place,
        *,
        inputs: Callable[[], Tensor],
        arrange: Callable[[Tensor], Tensor],
        groups: int = 1,
    ) -> None:
        super().__init__(tensors, place)
        self._inputs, self.arrange, self.groups = inputs, arrange, groups

    @cached_property
    def inputs(self) -> Tensor:
        """The layer's input at every position, in the order of the layer: [..., group * in]."""
        return self._inputs()

    @cached_property
    def rows(self) -> Tensor:
        """The layer's input at every position, [batch, position, group, in]."""
        return self._at_positions(self.inputs)

    def cotangent(self, g: Tensor) -> Tensor:
        """The derivative in the layer's output at every position,
        [batch, position, group, out].
        """
        return self._at_positions(self.arrange(g))

    @override
    def at_positions(self, g: Tensor) -> Tensor:
        return self.arrange(g)

    @override
    def total(self, role: str, g: Tensor) -> tuple[Tensor, Tensor]:
        at = self.arrange(g)
        if role == "bias":
            flat = at.reshape(-1, at.shape[-1])
            return flat.sum(0), flat.norm() * len(flat) ** 0.5
        at = at.reshape(-1, self.groups, at.shape[-1] // self.groups)
        a = self.inputs.reshape(len(at), self.groups, -1)
        product = at.permute(1, 2, 0) @ a.movedim(1, 0)
        return product.reshape(self.tensors["weight"].shape), at.norm() * a.norm()

    def gram(self, tensor: Tensor) -> tuple[Tensor, int]:
        """sum t t^T over examples and positions, [group, n, n], and their number: which is which
        does not matter.

        `tensor` is `inputs`, or what `arrange` makes of a derivative.
        """
        t = tensor.reshape(len(tensor), -1, self.groups, tensor.shape[-1] // self.groups).movedim(2, 1)
        count = t.shape[0] * t.shape[2]
        if t.shape[2] > t.shape[3]:  # many positions: no copy of them all
            return (t.mT @ t).sum(0), count
        flat = t.movedim(1, 0).flatten(1, 2)
        return ((flat[0].mT @ flat[0]).unsqueeze(0) if self.groups == 1 else flat.mT @ flat), count

    def gradients(self, role: str, g: Tensor, examples: slice = slice(None)) -> Tensor:
        """Of every example, [batch, *parameter]."""
        at = self.cotangent(g)[examples]
        if role == "bias":
            return at.sum(1).flatten(1)
        return torch.einsum("bpgo,bpgi->bgoi", at, self.rows[examples]).reshape(len(at), *self.tensors["weight"].shape)

    def _at_positions(self, tensor: Tensor) -> Tensor:
        """[batch, position, group, in or out]."""
        return self.place.by_example(tensor).reshape(self.place.batch, -1, self.groups, tensor.shape[-1] // self.groups)


class Lookup(Matrix):
    """s = W[index]: an embedding; the rows are one-hot and W is [in, out]."""

    def __init__(self, weight: Tensor, place: Place, index: Tensor, padding: int | None) -> None:
        super().__init__(
            {"weight": weight},
            place,
            inputs=lambda: F.one_hot(index, len(weight)).to(weight.dtype),
            arrange=lambda g: g,
        )
        self.index, self.padding = index, padding

    @override
    def total(self, role: str, g: Tensor) -> tuple[Tensor, Tensor]:
        weight, words, at = self.tensors["weight"], self.index.flatten(), g.reshape(-1, g.shape[-1])
        if self.padding is not None:
            at = at.masked_fill((words == self.padding % len(weight)).unsqueeze(-1), 0)
        return at.new_zeros(weight.shape).index_add_(0, words, at), at.norm() * len(at) ** 0.5

    @property
    def words(self) -> Tensor:
        """Which row of W stands at every position, [batch, position]."""
        return self.place.by_example(self.index.unsqueeze(-1)).reshape(self.place.batch, -1)

    def cotangent(self, g: Tensor) -> Tensor:
        """The derivative in the layer's output at every position,
        [batch, position, 1, out]; none for padding.
        """
        at = super().cotangent(g)
        if self.padding is None:
            return at
        padded = self.words == self.padding % len(self.tensors["weight"])
        return at.masked_fill(padded[..., None, None], 0)

    def gradients(self, role: str, g: Tensor, examples: slice = slice(None)) -> Tensor:
        """Of every example, [batch, *parameter]."""
        at = self.cotangent(g)[examples].squeeze(2)
        words = self.words[examples].unsqueeze(-1).expand_as(at)
        return at.new_zeros(len(at), *self.tensors["weight"].shape).scatter_add_(1, words, at)


class Scale(Use):
    """s = w * a + b elementwise, w broadcast over positions: the scale and
    shift after a normalisation.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor | None],
        place: Place,
        *,
        rows: Callable[[], Tensor],
        axes: tuple[int, ...],
    ) -> None:
        super().__init__(tensors, place)
        self._rows, self.axes = rows, axes

    @cached_property
    def rows(self) -> Tensor:
        """The normalised input."""
        return self._rows()

    @override
    def at_positions(self, g: Tensor) -> Tensor:
        return self._arrange(g).flatten(-len(self.axes))

    @override
    def total(self, role: str, g: Tensor) -> tuple[Tensor, Tensor]:
        full = self._arrange(g * self.rows if role == "weight" else g)
        flat = full.reshape(-1, *self._shape)
        return flat.sum(0), flat.norm() * len(flat) ** 0.5

    def gradients(self, role: str, g: Tensor, examples: slice = slice(None)) -> Tensor:
        """Of every example, [batch, *parameter]."""
        full = self._arrange(g * self.rows if role == "weight" else g)
        by_example = self.place.by_example(full)[examples]  # [batch, position..., *parameter]
        return by_example.reshape(len(by_example), -1, *self._shape).sum(1)

    @property
    def _shape(self) -> Size:
        return next(iter(self.tensors.values())).shape

    def _arrange(self, tensor: Tensor) -> Tensor:
        """With the axes of the parameter last."""
        kept = tuple(axis % tensor.dim() for axis in self.axes)
        order = [axis for axis in range(tensor.dim()) if axis not in kept] + list(kept)
        return tensor.permute(order)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, place: Place) -> Use:
    a = input.detach()
    return Matrix({"weight": weight, "bias": bias}, place, inputs=lambda: a, arrange=lambda g: g)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    place: Place,
) -> Use | None:
    spatial = weight.dim() - 2
    if input.dim() != weight.dim():
        return None  # one image without a batch axis
    kernel = weight.shape[2:]
    stride, dilation = _each(stride, spatial), _each(dilation, spatial)

    def inputs() -> Tensor:
        """[batch, *position, group * in * kernel]."""
        patches = F.pad(input.detach(), _margins(padding, kernel, dilation))
        if spatial == 2:
            return F.unfold(patches, kernel, dilation=dilation, stride=stride).mT
        for axis in range(spatial):
            width = dilation[axis] * (kernel[axis] - 1) + 1
            patches = patches.unfold(2 + axis, width, stride[axis])[..., :: dilation[axis]]
        order = [0, *range(2, 2 + spatial), 1, *range(2 + spatial, 2 + 2 * spatial)]
        return patches.permute(order).flatten(1 + spatial)

    return Matrix(
        {"weight": weight, "bias": bias},
        place,
        inputs=inputs,
        arrange=lambda g: g.flatten(2).mT,
        groups=groups,
    )


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    *options: Any,
    place: Place,
    **more: Any,
) -> Use | None:
    # max_norm changes the weights
    return None if max_norm is not None else Lookup(weight, place, input, padding_idx)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    place: Place,
) -> Use:
    def rows() -> Tensor:
        return F.batch_norm(input.detach(), running_mean, running_var, momentum=momentum, eps=eps)

    return Scale({"weight": weight, "bias": bias}, place, rows=rows, axes=(1,))


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    place: Place,
) -> Use:
    def rows() -> Tensor:
        return F.layer_norm(input.detach(), normalized_shape, None, None, eps)

    axes = tuple(range(-len(normalized_shape), 0))
    return Scale({"weight": weight, "bias": bias}, place, rows=rows, axes=axes)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    place: Place,
) -> Use:
    def rows() -> Tensor:
        return F.group_norm(input.detach(), num_groups, None, None, eps)

    return Scale({"weight": weight, "bias": bias}, place, rows=rows, axes=(1,))


RULES: dict[Any, Callable[..., Use | None]] = {
    F.linear: _linear,
    F.conv1d: _convolution,
    F.conv2d: _convolution,
    F.conv3d: _convolution,
    F.embedding: _embedding,
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
}
"""{function: its rule}. A rule takes the function's own arguments and says how its output depends
on its parameters.
"""


def _each(value: Any, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def _margins(padding: Any, kernel: Size, dilation: tuple[int, ...]) -> list[int]:
    """For `F.pad`: (left, right) of the last axis first."""
    margins: list[int] = []
    for axis in reversed(range(len(kernel))):
        if padding == "same":
            total = dilation[axis] * (kernel[axis] - 1)
            margins += [total // 2, total - total // 2]
        else:
            one = 0 if padding == "valid" else _each(padding, len(kernel))[axis]
            margins += [one, one]
    return margins
