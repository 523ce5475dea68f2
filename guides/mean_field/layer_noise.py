"""One forward pass in which every example meets its own noise of the weights."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from bayesnn.functional import Inputs, batch_size, call
from bayesnn.guides.mean_field.layer_noise_rules import RULES, Noise
from bayesnn.guides.mean_field.layer_noise_tensors import NormalTensor
from bayesnn.models import BNN

log = logging.getLogger(__name__)
_SHARED: "WeakKeyDictionary[nn.Module, set[str]]" = WeakKeyDictionary()
_VALUES = ("item", "tolist", "numpy", "__bool__", "__float__", "__int__")


def layer_noise_outputs(model: BNN, values: Mapping[str, NormalTensor | Tensor], x: Inputs, noise: Noise) -> Tensor:
    """f(x_i; w_i), w_i ~ N(m, s^2) for every example of a batch, through the unchanged network,
    [batch, ...].

    A parameter that one layer uses, and uses once, gets the noise of that layer's rule. Every
    other (tied weights, recurrent layers, attention, views) is drawn once for the batch; the first
    call of a model finds out which those are, in a pass of its own that uses up no random numbers,
    and logs their names.

    Args:
        model: whose network is called.
        values: {parameter: normal with the shape of the parameter, or a tensor for one that is
            certain}.
        x: inputs.
        noise: the noise of linear layers and convolutions.
    """
    if model not in _SHARED:
        device = next(model.net.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
            _, names = _one_pass(model.net, values, x, noise, set())
        _share(model, names)
    while True:
        outputs, names = _one_pass(model.net, values, x, noise, _SHARED[model])
        if not names:
            return outputs
        _share(model, names)  # the network took another path than in its first call


def _share(model: BNN, names: set[str]) -> None:
    _SHARED[model] = _SHARED.get(model, set()) | names
    if names:
        log.info("noise of layers: %s: drawn once for a batch, as by MeanFieldELBO", ", ".join(sorted(names)))


def _one_pass(
    net: nn.Module, values: Mapping[str, NormalTensor | Tensor], x: Inputs, noise: Noise, shared: set[str]
) -> tuple[Tensor, set[str]]:
    """The outputs, and the names of parameters that would have to be shared:
    with any, the outputs are void.
    """
    normals = {name: value for name, value in values.items() if isinstance(value, NormalTensor)}
    drawn = {name: normal.draw() if name in shared else normal.loc for name, normal in normals.items()}
    mode = _NoisyLayers({name: value for name, value in normals.items() if name not in shared}, batch_size(x), noise)
    with mode:
        outputs = call(net, {name: drawn.get(name, value) for name, value in values.items()}, x)  # type: ignore[arg-type]
    return outputs, mode.unknown


class _NoisyLayers(TorchFunctionMode):
    """Replaces what a layer does with the mean of a random parameter."""

    def __init__(self, normals: Mapping[str, NormalTensor], batch: int, noise: Noise) -> None:
        super().__init__()
        self.normals = {id(normal.loc): normal for normal in normals.values()}
        self.names = {id(normal.loc): name for name, normal in normals.items()}
        self.batch, self.noise = batch, noise
        self.used: set[str] = set()
        self.unknown: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        parameters = {self.names[id(leaf)] for leaf in _opened((*args, *kwargs.values())) if id(leaf) in self.names}
        if not parameters:
            return func(*args, **kwargs)
        if func in RULES and self._find(args[0] if args else kwargs["input"]) is None:
            self.unknown |= parameters & self.used
            self.used |= parameters
            return RULES[func](func, self._find, self.batch, self.noise, *args, **kwargs)
        result = func(*args, **kwargs)
        of_tensors = any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result))
        if (of_tensors and id(result) not in self.names) or getattr(func, "__name__", "") in _VALUES:
            # Not its shape or device, nor the tensor itself, as .contiguous() returns.
            self.unknown |= parameters
        return result

    def _find(self, tensor: Tensor | None) -> NormalTensor | None:
        return self.normals.get(id(tensor))


def _opened(values: Iterable[Any]) -> Iterator[Any]:
    """The arguments of a function, with lists opened."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _opened(value)
        else:
            yield value
