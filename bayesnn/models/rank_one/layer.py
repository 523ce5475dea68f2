"""One layer whose members share a weight and differ by two vectors."""

from typing import Any

from torch import Tensor, nn

from bayesnn.models.rank_one.code import LayerCode
from bayesnn.models.rank_one.initialisation import Initialisation
from bayesnn.models.rank_one.layout import by_member

Convertible = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class RankOne(nn.Module):
    """y = layer(x r_j) s_j + b_j: member j's weight is W with its entries times s_j r_j^T, for M members at once.

    Rows come in blocks, the first member's first. In a convolution the vectors act on channels, with groups too. How
    many members there are follows from the vectors, so that those of one member, [1, width], run that member alone.

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
        """[member * batch, ...] -> the same in outputs."""
        members, linear = len(self.r), isinstance(self.layer, nn.Linear)
        y = self.layer((by_member(x, members) * _beside(self.r, x, linear)).flatten(0, 1), *args, **kwargs)
        scaled = by_member(y, members)
        s = _beside(self.s, y, linear)
        # One pass over the outputs for both.
        scaled = scaled * s if self.bias is None else _beside(self.bias, y, linear).addcmul(scaled, s)
        return scaled.flatten(0, 1)

    def dense(self, r: Tensor, s: Tensor) -> Tensor:
        """One member's weight, W with its entries times s r^T, from r [in] and s [out]."""
        weight: Tensor = self.layer.weight
        groups: int = getattr(self.layer, "groups", 1)
        r, s = r.reshape(groups, -1), s.reshape(groups, -1)
        factor = r.unsqueeze(2) * s.unsqueeze(1) if isinstance(self.layer, _TRANSPOSED) else s.unsqueeze(2) * r[:, None]
        return weight * factor.reshape(weight.shape[:2] + (1,) * (weight.dim() - 2))

    def undecayed(self) -> list[nn.Parameter]:
        """The members' own: weight decay would pull r and s to 0, and the members together."""
        return [self.r, self.s] + ([] if self.bias is None else [self.bias])

    def extra_repr(self) -> str:
        """The number of members."""
        return f"members={len(self.r)}"


def widths(layer: Any) -> tuple[int, int]:
    """Inputs and outputs, or channels of them."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _started(initial: Initialisation, members: int, width: int) -> Tensor:
    vectors = initial(members, width)
    if vectors.shape != (members, width):
        raise ValueError(f"initial: ({members}, {width}) -> [member, width] is needed, not {tuple(vectors.shape)}")
    return vectors


def _beside(vectors: Tensor, x: Tensor, linear: bool) -> Tensor:
    """[member, width] to broadcast with [member, batch, ...], the width in the last axis or in that of channels."""
    members, width = vectors.shape
    axes = x.dim() - 2
    return vectors.view(members, 1, *(1,) * axes, width) if linear else vectors.view(members, 1, width, *(1,) * axes)
