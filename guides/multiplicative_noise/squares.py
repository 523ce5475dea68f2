"""W^2 of a layer with multiplicative noise, and what the KL divergence needs of
it, in one pass.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Squares(NamedTuple):
    """Of one weight W with floor c.

    Attributes:
        square: W^2 + c^2, of the shape of W.
        columns: sum_i (W_ij^2 + c^2) for each input j, [in].
        logs: sum_ij log(W_ij^2 + c^2).
        floor: c.
    """

    square: Tensor
    columns: Tensor
    logs: Tensor
    floor: float


def squared(loc: Tensor, floor: float, axis: int, groups: int) -> Squares:
    """The squares of W, [out, in / groups, ...] or, with `axis` 0, [in, out / groups, ...].

    >>> squared(torch.tensor([[1.0, 2.0]]), 0.0, 1, 1).columns
    tensor([1., 4.])
    """
    square, columns, logs = _Squares.apply(loc, floor, axis, groups)
    return Squares(square, columns, logs, floor)


class _Squares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loc: Tensor, floor: float, axis: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        square = torch.addcmul(loc.new_tensor(floor**2), loc, loc)
        ctx.view = (groups, -1, *square.shape[1:]) if axis else (1, *square.shape)
        view = square.view(ctx.view)
        ctx.summed = [1, *range(3, view.dim())] if axis else list(range(2, view.dim()))
        columns = view.sum(ctx.summed, keepdim=True) if ctx.summed else view
        ctx.save_for_backward(loc, square)
        ctx.set_materialize_grads(False)
        return square, columns.reshape(-1), square.log().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """2 W (g_square + g_columns + g_logs / square)."""
        loc, square = ctx.saved_tensors
        g_square, g_columns, g_logs = gradients
        total = torch.zeros_like(square) if g_logs is None else g_logs / square
        if g_square is not None:
            total += g_square
        if g_columns is not None:
            view = total.view(ctx.view)
            view += g_columns.reshape([1 if axis in ctx.summed else n for axis, n in enumerate(view.shape)])
        return total.mul_(loc).mul_(2), None, None, None
