"""The derivative of a network's outputs along one direction of its weights."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import jvp

from bayesnn.curvature.jacobian import Function
from bayesnn.functional.call import Inputs
from bayesnn.functional.transforms import transformable


def tangent(function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor], x: Inputs) -> Tensor:
    """J(x) d, [batch, ...]: what the outputs change by per unit of the step along `direction`.

    In forward mode, about four forward passes; where a layer has no rule for that, by
    differentiating J^T u, which is linear in u, once more.

    Args:
        function: (values, x) -> outputs [batch, ...].
        values: {name: value} where it is differentiated.
        direction: {name: step}, of the same names and shapes.
        x: inputs.

    >>> f = lambda v, x: x @ v["w"]
    >>> tangent(f, {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.0, 0.5])}, torch.tensor([[3.0, 4.0]]))
    tensor([2.])
    """
    values = {name: value.detach() for name, value in values.items()}
    direction = {name: direction[name] for name in values}
    with transformable(next(iter(values.values())).device):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
                return jvp(lambda v: function(v, x), (values,), (direction,))[1]
        except (RuntimeError, NotImplementedError) as error:
            if "forward" not in str(error):
                raise
            return _twice(function, values, direction, x)


def _twice(function: Function, values: dict[str, Tensor], direction: dict[str, Tensor], x: Inputs) -> Tensor:
    with torch.enable_grad():
        leaves = {name: value.requires_grad_() for name, value in values.items()}
        outputs = function(leaves, x)
        seed = torch.zeros_like(outputs, requires_grad=True)
        transposed = torch.autograd.grad(
            outputs, list(leaves.values()), seed, create_graph=True, materialize_grads=True
        )
        pairs = [(t, direction[name]) for name, t in zip(leaves, transposed, strict=True) if t.requires_grad]
        (tangents,) = torch.autograd.grad([t for t, _ in pairs], seed, [d for _, d in pairs])
    return tangents
