"""Networks whose shapes hide which axis is the batch, or that torch itself
differentiates wrongly under `vmap`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Case = tuple[nn.Module, Any]


class Table(nn.Module):
    """A layer acts on a table that all examples share."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-1, 1, rows).unsqueeze(1))
        self.place, self.inner, self.head = nn.Linear(1, 3), nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x).tanh() * self.place(self.grid).tanh().mean(0))


class Joined(nn.Module):
    """Both inputs go through the encoder as one batch."""

    def __init__(self, *, interleaved: bool = False) -> None:
        super().__init__()
        self.interleaved = interleaved
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3))
        self.head = nn.Linear(3, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if self.interleaved:
            u, v = self.encoder(torch.stack([a, b], 1).flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        else:
            u, v = self.encoder(torch.cat([a, b])).chunk(2)
        return self.head((u - v).abs())


class Reversed(nn.Module):
    """The second half of the batch has the examples in reverse: no axis is the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.encoder(torch.cat([x, x.flip(0) ** 2])).tanh().chunk(2)
        return self.head(u * v.flip(0))


class Frames(nn.Module):
    """Frames first, flat; without a bias a black frame has no derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.head = nn.Linear(4, 3, bias=False), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.each(x.transpose(0, 1).flatten(0, 1)).relu()
        return self.head(h.unflatten(0, (x.shape[1], -1)).mean(0))


class FrameImages(nn.Module):
    """A convolution of frames, all frames of a batch being one batch of images, frames first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.conv(x.transpose(0, 1).flatten(0, 1).unsqueeze(1))).tanh().mean((2, 3))
        return self.head(h.unflatten(0, (x.shape[1], -1)).mean(0))


class BatchLast(nn.Module):
    """Two axes before the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.head = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.each(x.movedim(0, 2)).tanh().mean((0, 1)))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class Residual(nn.Module):
    """Adds in place to what a layer with a bias made of a sequence, which is a view."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        h += x
        return self.head(h.tanh().mean(1))


class Auxiliary(nn.Module):
    """A head whose output nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.auxiliary, self.head = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x).tanh()
        out = self.head(h)
        self.auxiliary(h)
        return out


class Gate(nn.Module):
    """A hard gate, whose derivative is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.gate, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).tanh() * (self.gate(x) > 0))


class Prototypes(nn.Module):
    """Distances to prototypes, which torch differentiates wrongly under `vmap`."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.prototypes = nn.Linear(3, 4), nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.body(x).tanh(), self.prototypes)


class Scaled(torch.autograd.Function):
    """A product with its own derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return x * scale

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        return g * scale, (g * x).sum(0)


class Custom(nn.Module):
    """A parameter goes through a custom operation of autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.ones(3)), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Scaled.apply(x, self.scale))


class TimeFirstEncoder(nn.Module):
    """Attention with time before batch."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.encoder = nn.TransformerEncoderLayer(4, 2, 6, batch_first=batch_first)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.batch_first:
            return self.head(self.encoder(x).mean(1))
        return self.head(self.encoder(x.transpose(0, 1)).mean(0))


def in_place() -> nn.Module:
    """An activation in place after a layer with a bias on a sequence."""
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), Mean(), nn.Linear(4, 2))


def pairs(batch: int, *, same: bool) -> tuple[Tensor, Tensor]:
    """Two inputs; the first example's may be the same."""
    a, b = torch.randn(batch, 3), torch.randn(batch, 3)
    if same:
        b[0] = a[0]
    return a, b


def black_first(x: Tensor) -> Tensor:
    """With the first example zero."""
    x[0] = 0
    return x


BY_LAYERS: dict[str, Callable[[], Case]] = {
    "joined": lambda: (Joined(), pairs(8, same=False)),
    "joined, first pair identical": lambda: (Joined(), pairs(8, same=True)),
    "joined, two pairs": lambda: (Joined(), pairs(2, same=True)),
    "interleaved": lambda: (Joined(interleaved=True), pairs(8, same=True)),
    "frames, first black": lambda: (Frames(), black_first(torch.randn(8, 6, 4))),
    "frames, as many as examples": lambda: (Frames(), black_first(torch.randn(6, 6, 4))),
    "frame images": lambda: (FrameImages(), black_first(torch.randn(4, 3, 5, 5))),
    "batch after two axes": lambda: (BatchLast(), torch.randn(3, 4, 3, 2)),
    "in place, relu": lambda: (in_place(), torch.randn(6, 5, 3)),
    "in place, sum": lambda: (Residual(), torch.randn(6, 5, 3)),
    "auxiliary": lambda: (Auxiliary(), torch.randn(9, 3)),
    "gate": lambda: (Gate(), torch.randn(9, 3)),
    "encoder, square": lambda: (TimeFirstEncoder(batch_first=True), torch.randn(5, 5, 4)),
    "encoder, time first": lambda: (TimeFirstEncoder(batch_first=False), torch.randn(5, 3, 4)),
    "encoder, time first, square": lambda: (TimeFirstEncoder(batch_first=False), torch.randn(5, 5, 4)),
}
"""Where an axis is the batch: rules apply, in every structure."""

BY_JACOBIANS: dict[str, Callable[[], Case]] = {
    "table, a multiple": lambda: (Table(25), torch.randn(5, 4)),
    "table, as long": lambda: (Table(5), torch.randn(5, 4)),
    "reversed": lambda: (Reversed(), torch.randn(6, 3)),
    "custom": lambda: (Custom(), torch.randn(6, 3)),
}
"""Where none is: Jacobians stand in."""

BY_LOOP: dict[str, Callable[[], Case]] = {
    "prelu": lambda: (nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 3)), torch.randn(3, 3)),
    "cdist": lambda: (Prototypes(), torch.randn(7, 3)),
    "cdist, one example": lambda: (Prototypes(), torch.randn(1, 3)),
}
"""Where `torch.func` is wrong: examples are differentiated one by one."""
