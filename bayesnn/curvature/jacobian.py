"""Per-example Jacobians of a network's outputs with respect to chosen values."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import jacrev
from torch.utils import _pytree as pytree

from bayesnn.curvature.evidence import agree, seeded_normal
from bayesnn.curvature.fallback import warn_slow
from bayesnn.functional.call import Inputs, batch_size, chunks, tensors
from bayesnn.functional.transforms import transformable

Function = Callable[[Mapping[str, Tensor], Inputs], Tensor]
"""(values, x [batch, ...]) -> outputs [batch, ...]: what models offer as `model.outputs`."""

MEMORY = 32 * 2**20
"""Bytes that the derivatives of one chunk of examples may take: within a cache,
which halves the time on LeNet.
"""


def jacobian(function: Function, values: Mapping[str, Tensor], x: Inputs) -> tuple[Tensor, Tensor]:
    """J_i = d f(x_i; w) / d w, one matrix an example, without forming derivatives across examples.

    Args:
        function: (values, x) -> outputs [batch, ...]; several output axes are flattened to one.
        values: {name: value}; the columns follow their order, each value flattened.
        x: inputs of `batch` examples.

    Warns:
        SlowFallback: examples were differentiated one by one: see `Jacobians`.

    Returns:
        outputs [batch, class] and the Jacobian [batch, class, param], in outputs per unit of the
        values.

    >>> f = lambda v, x: x @ v["w"].T
    >>> out, J = jacobian(f, {"w": torch.tensor([[1.0, 2.0]])}, torch.tensor([[3.0, 4.0]]))
    >>> out, J
    (tensor([[11.]]), tensor([[[3., 4.]]]))
    """
    return Jacobians(function)(values, x)


class Jacobians:
    """`jacobian` of one function, which remembers for which shapes `torch.func` was found to be
    right.

    torch differentiates some operations wrongly under `vmap` (`cdist`; `prelu` where there are as
    many examples as outputs). So sum_i u_i^T J_i with random u is compared with autograd's
    gradient of sum_i u_i^T f_i, at the first batch of every shape whose derivatives are not all
    zero. Where they disagree, and where an operation cannot be vectorised, examples are
    differentiated one by one, with a `SlowFallback` warning.

    Args:
        function: (values, x) -> outputs [batch, ...].
        net: whose fallbacks are told once.
    """

    def __init__(self, function: Function, net: nn.Module | None = None) -> None:
        self.function, self.net = function, net
        self._right: set[object] = set()
        self._loops = self._told = False

    def __call__(self, values: Mapping[str, Tensor], x: Inputs) -> tuple[Tensor, Tensor]:
        """Outputs [batch, class] and the Jacobian [batch, class, param]."""
        values = dict(values)
        reason = ""
        if not self._loops:
            try:
                outputs, blocks = _vectorised(self.function, values, x)
            except (RuntimeError, NotImplementedError) as error:
                # a layer without a batching rule, such as LSTM
                reason = str(error).split("\n")[0][:100]
            else:
                if self._checked(values, x, outputs, blocks):
                    return outputs, torch.cat([block.reshape(*outputs.shape, -1) for block in blocks.values()], 2)
                reason = "torch.func's derivatives are not those of autograd"
        # raises what is wrong with the function itself
        result = _jacobian_by_loop(self.function, values, x)
        self._loops = True
        if not self._told:
            self._told = True
            warn_slow(
                self.net,
                f"Jacobians of {'a function' if self.net is None else type(self.net).__name__} by one backward pass "
                f"for every example and output, as {reason}. They are exact, but slow.",
            )
        return result

    def _checked(self, values: dict[str, Tensor], x: Inputs, outputs: Tensor, blocks: dict[str, Tensor]) -> bool:
        shapes = tuple(leaf.shape for leaf in tensors(x))
        if shapes in self._right:
            return True
        with torch.enable_grad(), transformable(outputs.device):
            leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
            direct = self.function(leaves, x).reshape(outputs.shape)
            u = seeded_normal(outputs)
            true = _gradients(direct, list(leaves.values()), u)
        u, evidence = u.detach(), False
        for block, expected in zip(blocks.values(), true, strict=True):
            block = block.detach()
            ours = torch.tensordot(u, block, 2)
            if not agree(ours, expected, u.norm() * block.norm()):
                return False
            evidence |= bool(expected.ne(0).any())
        if evidence:
            self._right.add(shapes)
        return True


def _vectorised(function: Function, values: dict[str, Tensor], x: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs [batch, class] and {name: [batch, class, *value]}."""

    def one(v: dict[str, Tensor], example: Inputs) -> tuple[Tensor, Tensor]:
        single = pytree.tree_map_only(Tensor, lambda leaf: leaf.unsqueeze(0), example)
        outputs = function(v, single).reshape(-1)
        return outputs, outputs

    axes = pytree.tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) else None, x)
    with transformable(next(iter(values.values())).device):
        blocks, outputs = torch.vmap(jacrev(one, has_aux=True), in_dims=(None, axes))(values, x)
    return outputs, {name: blocks[name].reshape(*outputs.shape, *value.shape) for name, value in values.items()}


def jacobian_chunks(
    function: Function, values: Mapping[str, Tensor], x: Inputs, *, numbers: int | None = None
) -> Iterator[tuple[Inputs, Tensor, Tensor]]:
    """(x, outputs, Jacobian) in chunks of examples whose derivatives stay within `MEMORY` bytes.

    `numbers` is how many numbers the derivative of one output has on the way: where `values` are a
    few entries of large tensors, those of the tensors (`BNN.touched`). By default, as many as the
    values.
    """
    first = next(iter(chunks(x, 1)))
    with torch.no_grad():
        width = function(values, first).numel()
    value = next(iter(values.values()))
    jacobians = Jacobians(function)
    row = width * (numbers or sum(v.numel() for v in values.values())) * value.element_size()
    for part in chunks(x, max(1, min(batch_size(x), MEMORY // max(row, 1)))):
        yield part, *jacobians(values, part)


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
    """d output / d leaves, [param]."""
    return torch.cat([gradient.flatten() for gradient in _gradients(output, leaves, torch.ones_like(output))])


def _gradients(output: Tensor, leaves: list[Tensor], cotangent: Tensor) -> Sequence[Tensor]:
    """d <output, cotangent> / d leaves; zeros for leaves that it does not depend on."""
    if not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return torch.autograd.grad(output, leaves, cotangent, retain_graph=True, materialize_grads=True)
