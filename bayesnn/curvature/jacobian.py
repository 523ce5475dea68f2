"""Per-example Jacobians of a network's outputs with respect to chosen values."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.func import jacrev
from torch.utils import _pytree as pytree

from bayesnn.functional.call import Inputs, batch_size, chunks
from bayesnn.functional.transforms import transformable

Function = Callable[[Mapping[str, Tensor], Inputs], Tensor]
"""(values, x [batch, ...]) -> outputs [batch, ...]: what models offer as `model.outputs`."""

MEMORY = 32 * 2**20
"""Bytes that the derivatives of one chunk of examples may take: within a cache, which halves the time on LeNet."""


def jacobian(function: Function, values: Mapping[str, Tensor], x: Inputs) -> tuple[Tensor, Tensor]:
    """J_i = d f(x_i; w) / d w, one matrix an example, without forming derivatives across examples.

    Args:
        function: (values, x) -> outputs [batch, ...]; several output axes are flattened to one.
        values: {name: value}; the columns follow their order, each value flattened.
        x: inputs of `batch` examples.

    Returns:
        outputs [batch, class] and the Jacobian [batch, class, param], in outputs per unit of the values.

    >>> f = lambda v, x: x @ v["w"].T
    >>> out, J = jacobian(f, {"w": torch.tensor([[1.0, 2.0]])}, torch.tensor([[3.0, 4.0]]))
    >>> out, J
    (tensor([[11.]]), tensor([[[3., 4.]]]))
    """
    values = dict(values)

    def one(v: dict[str, Tensor], example: Inputs) -> tuple[Tensor, Tensor]:
        single = pytree.tree_map_only(Tensor, lambda leaf: leaf.unsqueeze(0), example)
        outputs = function(v, single).reshape(-1)
        return outputs, outputs

    per_example = jacrev(one, has_aux=True)
    axes = pytree.tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) else None, x)
    device = next(iter(values.values())).device
    try:
        with transformable(device):
            blocks, outputs = torch.vmap(per_example, in_dims=(None, axes))(values, x)
    except (RuntimeError, NotImplementedError):  # a layer without a batching rule, such as LSTM
        return _jacobian_by_loop(function, values, x)
    return outputs, torch.cat([blocks[name].reshape(*outputs.shape, -1) for name in values], dim=2)


def jacobian_chunks(
    function: Function, values: Mapping[str, Tensor], x: Inputs, *, numbers: int | None = None
) -> Iterator[tuple[Inputs, Tensor, Tensor]]:
    """(x, outputs, Jacobian) in chunks of examples whose derivatives stay within `MEMORY` bytes.

    `numbers` is how many numbers the derivative of one output has on the way: where `values` are a few entries of large
    tensors, those of the tensors (`BNN.touched`). By default, as many as the values.
    """
    first = next(iter(chunks(x, 1)))
    with torch.no_grad():
        width = function(values, first).numel()
    value = next(iter(values.values()))
    row = width * (numbers or sum(v.numel() for v in values.values())) * value.element_size()
    for part in chunks(x, max(1, min(batch_size(x), MEMORY // max(row, 1)))):
        yield part, *jacobian(function, values, part)


def _jacobian_by_loop(function: Function, values: dict[str, Tensor], x: Inputs) -> tuple[Tensor, Tensor]:
    rows, outputs = [], []
    for example in chunks(x, 1):
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
            output = function(leaves, example).reshape(-1)
            rows.append(torch.stack([_row(one, list(leaves.values())) for one in output]))
        outputs.append(output.detach())
    return torch.stack(outputs), torch.stack(rows)


def _row(output: Tensor, leaves: list[Tensor]) -> Tensor:
    """d output / d leaves, [param]; zeros for leaves that it does not depend on."""
    if not output.requires_grad:
        return torch.cat([torch.zeros_like(leaf).flatten() for leaf in leaves])
    gradients = torch.autograd.grad(output, leaves, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])
