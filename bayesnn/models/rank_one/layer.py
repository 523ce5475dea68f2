"""One layer whose members share a weight and differ by two vectors."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from bayesnn.models.rank_one.code import LayerCode
from bayesnn.models.rank_one.initialisation import Initialisation
from bayesnn.models.rank_one.layout import by_member

Convertible = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_OF_WEIGHT, _OF_CALL = 4, 100_000
"""Entries of the rows whose products take as long as one entry of a member's weight, and as one
more call of the layer; measured on CPUs by examples/benchmarks/latents_layers.py."""


class RankOne(nn.Module):
    """y = layer(x r_j) s_j + b_j: member j's weight is W with its entries times s_j r_j^T, for M
    members at once.

    Rows come in blocks, the first member's first. In a convolution the vectors act on channels,
    with groups too. How many members there are follows from the vectors, so that those of one
    member, [1, width], run that member alone.

    Args:
        layer: the linear layer; its weight is shared, its bias becomes the members'.
        members: M.
        initial: (members, width) -> r or s, [member, width].
        code: of the vector r, where it is encoded.
    """

    def __init__(self, layer: Any, members: int, initial: Initialisation, code: LayerCode | None = None) -> None:
        super().__init__()
        inputs, outputs = widths(layer)
        weight, bias = layer.weight, layer.bias
        self.r = nn.Parameter(_started(initial, members, inputs).to(weight))
        self.s = nn.Parameter(_started(initial, members, outputs).to(weight))
        self.bias = None if bias is None else nn.Parameter(bias.detach().repeat(members, 1))
        layer.bias = None
        self.layer = layer
        self.code = code
        self.training = layer.training

    def __getattr__(self, name: str) -> Any:
        if name == "weight":  # a network that reads it would pass by the members
            raise AttributeError(
                f"RankOne: the weight of this {type(self.layer).__name__} differs between members, but the network "
                "reads it instead of calling the layer; leave the layer shared, shared=(name,)"
            )
        return super().__getattr__(name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The outputs [member * batch, ...] for inputs [member * batch, ...]."""
        rows = by_member(x, len(self.r))
        return self.by_weights(rows, *args, **kwargs) if self.large(rows) else self.by_rows(rows, *args, **kwargs)

    def large(self, rows: Tensor) -> bool:
        """Whether `by_weights` is the faster one for rows of this size."""
        inputs, outputs = widths(self.layer)
        # of one member, as of stride 1
        entries = rows.numel() // len(rows) * (1 + outputs / inputs)
        return entries > _OF_WEIGHT * self.layer.weight.numel() + _OF_CALL

    def by_weights(self, rows: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Each member's rows by its own weight: M weights are made, and inputs
        and outputs are touched once.
        """
        values = {"weight": self.dense(self.r, self.s).unbind()}
        if self.bias is not None:
            values["bias"] = self.bias.unbind()
        each = [
            functional_call(self.layer, {name: value[j] for name, value in values.items()}, (block, *args), kwargs)
            for j, block in enumerate(rows.unbind())
        ]
        return torch.cat(each)

    def by_rows(self, rows: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """All rows by the shared weight in one call: inputs are multiplied by r
        before, outputs by s after.
        """
        linear = isinstance(self.layer, nn.Linear)
        y = self.layer((rows * _beside(self.r, rows, linear)).flatten(0, 1), *args, **kwargs)
        scaled = by_member(y, len(rows))
        s = _beside(self.s, scaled, linear)
        # One pass over the outputs for both.
        scaled = scaled * s if self.bias is None else _beside(self.bias, scaled, linear).addcmul(scaled, s)
        return scaled.flatten(0, 1)

    def dense(self, r: Tensor, s: Tensor) -> Tensor:
        """Members' weights, W with its entries times s r^T, [..., *shape of W], from r [..., in]
        and s [..., out].
        """
        weight: Tensor = self.layer.weight
        groups: int = getattr(self.layer, "groups", 1)
        r, s = r.unflatten(-1, (groups, -1)), s.unflatten(-1, (groups, -1))
        transposed = isinstance(self.layer, _TRANSPOSED)
        factor = r.unsqueeze(-1) * s.unsqueeze(-2) if transposed else s.unsqueeze(-1) * r.unsqueeze(-2)
        return weight * factor.reshape(r.shape[:-2] + weight.shape[:2] + (1,) * (weight.dim() - 2))

    def undecayed(self) -> list[nn.Parameter]:
        """The members' own parameters.

        Weight decay would pull r and s to 0, and the members together.
        """
        return [self.r, self.s] + ([] if self.bias is None else [self.bias])

    @override
    def extra_repr(self) -> str:
        return f"members={len(self.r)}"


def widths(layer: Any) -> tuple[int, int]:
    """The numbers of inputs and outputs of a layer, or of their channels."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _started(initial: Initialisation, members: int, width: int) -> Tensor:
    vectors = initial(members, width)
    if vectors.shape != (members, width):
        raise ValueError(f"initial: ({members}, {width}) -> [member, width] is needed, not {tuple(vectors.shape)}")
    return vectors


def _beside(vectors: Tensor, rows: Tensor, linear: bool) -> Tensor:
    """[member, width] to broadcast with [member, batch, ...], the width in the last axis or in
    that of channels.
    """
    members, width = vectors.shape
    axes = rows.dim() - 3
    return vectors.view(members, 1, *(1,) * axes, width) if linear else vectors.view(members, 1, width, *(1,) * axes)
