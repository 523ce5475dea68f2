"""What the layers of a network computed in one forward pass, so that derivatives need only go back
to their outputs.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from bayesnn.curvature.layer_rules import RULES, Place, Use
from bayesnn.functional.call import Inputs, batch_size, call


@dataclass(frozen=True)
class Pass:
    """One forward pass over a batch, with its graph.

    Attributes:
        batch: how many examples.
        outputs: [batch, ...], attached to the graph.
        leaves: {name: the tensor that the pass used}.
        uses: {name: the layers that used it}, in the order of the pass.
        unknown: {name: what was done with it that has no rule}.
        calls: the names that each function took, in the order of the pass.
    """

    batch: int
    outputs: Tensor
    leaves: Mapping[str, Tensor]
    uses: Mapping[str, list[Use]]
    unknown: Mapping[str, str]
    calls: Sequence[tuple[str, ...]]

    def layers(self) -> list[Use]:
        """Every use once."""
        return list({id(use): use for uses in self.uses.values() for use in uses}.values())

    def back(self, cotangent: Tensor, *, last: bool = False) -> dict[int, Tensor]:
        """{id(use): d <outputs, cotangent> / d (the layer's output)}: one backward pass, without
        weight gradients.

        Args:
            cotangent: [batch, ...], of the outputs' shape.
            last: free the graph.
        """
        layers = self.layers()
        gradients = self._gradients([use.place.edge for use in layers], cotangent, last=last)
        return {id(use): self._or_zero(g, use.place.shape) for use, g in zip(layers, gradients, strict=True)}

    def back_to_leaves(self, cotangent: Tensor) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
        """What `back` gives, and autograd's own {name: d <outputs, cotangent> / d leaf}."""
        layers = self.layers()
        places = [*(use.place.edge for use in layers), *self.leaves.values()]
        gradients = self._gradients(places, cotangent, last=False)
        at_layers = zip(layers, gradients[: len(layers)], strict=True)
        at_leaves = zip(self.leaves.items(), gradients[len(layers) :], strict=True)
        return (
            {id(use): self._or_zero(g, use.place.shape) for use, g in at_layers},
            {name: self._or_zero(g, leaf.shape) for (name, leaf), g in at_leaves},
        )

    def depends_on(self) -> set[str]:
        """The names of the leaves that the outputs depend on."""
        gradients = self._gradients(list(self.leaves.values()), torch.ones_like(self.outputs), last=False)
        return {name for name, gradient in zip(self.leaves, gradients, strict=True) if gradient is not None}

    def _gradients(self, places: Sequence[Any], cotangent: Tensor, *, last: bool) -> Sequence[Tensor | None]:
        """In tensors or edges of the graph; None where the outputs do not depend on a place."""
        if not self.outputs.requires_grad or not places:
            return [None] * len(places)
        return torch.autograd.grad(self.outputs, places, cotangent, retain_graph=not last, allow_unused=True)

    def _or_zero(self, gradient: Tensor | None, shape: torch.Size) -> Tensor:
        if gradient is None:
            return self.outputs.detach().new_zeros(shape)
        return gradient.to_dense() if gradient.is_sparse else gradient


def forward_pass(net: nn.Module, values: Mapping[str, Tensor], x: Inputs) -> Pass:
    """f(x; values), and how every layer used the tensors in `values`.

    Linear, convolution, embedding, attention projections and the scales of normalisations have
    rules (`functional.layer_rules`). Whatever else happens to one of the tensors is named in
    `unknown`.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
    batch = batch_size(x)
    recorder = _Recorder(leaves, batch)
    with torch.enable_grad(), recorder:
        outputs = call(net, leaves, x)
    return Pass(batch, outputs, leaves, recorder.uses, recorder.unknown, recorder.calls)


class _Recorder(TorchFunctionMode):
    """Sees every function that is called with one of the leaves."""

    def __init__(self, leaves: Mapping[str, Tensor], batch: int) -> None:
        super().__init__()
        self.names = {id(leaf): name for name, leaf in leaves.items()}
        self.batch = batch
        self.uses: dict[str, list[Use]] = {}
        self.unknown: dict[str, str] = {}
        self.calls: list[tuple[str, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:  # its projections are seen one by one
                return _attention()(*args, **kwargs)
        result = func(*args, **kwargs)
        names = [self.names[id(leaf)] for leaf in _tensors(args, kwargs) if id(leaf) in self.names]
        if names and func in RULES and result._is_view():
            # An in-place operation would rewrite the history of a view, and its edge with it; that
            # of a tensor stays.
            result = result.clone()
        if names and any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            self.calls.append(tuple(dict.fromkeys(names)))
            self._note(func, args, kwargs, result, names)
        return result

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any, names: list[str]) -> None:
        if id(result) in self.names:  # returned as it is: .to(device), .contiguous()
            return
        use = None
        if func in RULES and result.requires_grad:
            # The edge, unlike the tensor, stays what it is when an in-place operation follows.
            place = Place(get_gradient_edge(result), result.shape, self.batch)
            use = RULES[func](*args, **kwargs, place=place)
            if use is not None:
                use.roles = {self.names[id(t)]: role for role, t in use.tensors.items() if id(t) in self.names}
        if use is not None and sorted(use.roles) == sorted(names):
            for name in use.roles:
                self.uses.setdefault(name, []).append(use)
        else:
            for name in names:
                self.unknown.setdefault(name, getattr(func, "__name__", str(func)))


def _tensors(args: Any, kwargs: Any) -> list[Any]:
    """What a function was called with, lists opened: `pytree.tree_leaves` would
    take longer than a small layer.
    """
    flat: list[Any] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, (list, tuple)):
            flat += _tensors(value, {})
        else:
            flat.append(value)
    return flat


def _attention() -> Callable[..., Any]:
    """torch's attention, calling its own parts so that a function mode sees them instead of the
    whole.

    Under a function mode it hands itself over to the mode before it does anything; here it
    believes there is none.
    """
    original = F.multi_head_attention_forward
    scope = {**original.__globals__, "has_torch_function": lambda _: False}
    return types.FunctionType(original.__code__, scope, original.__name__, original.__defaults__, original.__closure__)
