"""The choice of the layers that get members; weights that cannot have any are never ignored."""

from collections.abc import Collection, Iterator
from typing import TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from bayesnn.models.rank_one.layer import Convertible
from bayesnn.models.rank_one.norm import Separable

Shared: TypeAlias = "Collection[str | type[nn.Module]]"

_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
"""Layers that read the weights of layers inside them instead of calling those."""

_ELEMENTWISE = (_BatchNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
"""Layers that are passed over without a word, of whatever shape their weights are."""


class Choice:
    """The layers to convert.

    Args:
        caller: for errors.
        net: the network.
        layers: names of modules, or None for all.
        shared: names or classes of modules, or names of parameters, to leave as they are.

    Raises:
        ValueError: a name that the network does not have.
    """

    def __init__(self, caller: str, net: nn.Module, layers: Collection[str] | None, shared: Shared) -> None:
        if isinstance(layers, str) or isinstance(shared, str):
            raise ValueError(f"{caller}: layers and shared are collections of names, ('fc',), not a string")
        self.caller, self.net, self.chosen = caller, net, None if layers is None else list(layers)
        classes = tuple(entry for entry in shared if not isinstance(entry, str))
        by_class = [name for name, module in net.named_modules() if isinstance(module, classes)]
        self.shared = [entry for entry in shared if isinstance(entry, str)] + by_class
        known = {name for name, _ in net.named_modules(remove_duplicate=False)}
        known |= {name for name, _ in net.named_parameters(remove_duplicate=False)}
        for name in [*(self.chosen or []), *self.shared]:
            if name not in known:
                top = ", ".join(name for name, _ in net.named_children())
                raise ValueError(f"{caller}: {type(net).__name__} has no module {name!r}; its outermost are {top}")

    def layers(self) -> list[str]:
        """Names of the layers to convert, in the network's order.

        Raises:
            ValueError: there are none; a part of the network with weights that cannot be
                converted.
        """
        names = self._of(Convertible)
        for name in names:
            self._check_weights(name)
        for name, kind in self._unconvertible():
            by_class = f" or shared=(nn.{kind},)" if hasattr(nn, kind) else ""
            raise ValueError(
                f"{self.caller}: '{name}' ({kind}) cannot have members of rank one; leave it shared by all members, "
                f"shared=({name!r},){by_class}, or name the layers to convert, layers=(...)"
            )
        if not names:
            raise ValueError(
                f"{self.caller}: {type(self.net).__name__} has no Linear or convolution to convert"
                + ("" if self.chosen is None else f" in {', '.join(self.chosen)}")
            )
        return names

    def norms(self) -> list[str]:
        """Names of the BatchNorm layers of which every member gets its own.

        Raises:
            ValueError: one that is not a plain BatchNorm1d, 2d or 3d.
        """
        names = self._of((_BatchNorm,))
        for name in names:
            module = self.net.get_submodule(name)
            if type(module) not in Separable:
                raise ValueError(
                    f"{self.caller}: '{name}' ({type(module).__name__}) is no plain BatchNorm, so members cannot have "
                    f"their own; shared=({name!r},) leaves it to all"
                )
        return names

    def _check_weights(self, name: str) -> None:
        layer = self.net.get_submodule(name)
        if "weight" not in layer._parameters:  # a parametrisation, or a hook that sets it
            raise ValueError(
                f"{self.caller}: the weight of '{name}' is made from other parameters; make it a plain one first, "
                "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
            )
        if any(is_lazy(parameter) for parameter in layer.parameters()):
            raise ValueError(f"{self.caller}: '{name}' has no weights yet; call the network once")

    def _of(self, kinds: tuple[type[nn.Module], ...]) -> list[str]:
        return [name for name, module in self.net.named_modules() if isinstance(module, kinds) and self._in(name)]

    def _in(self, name: str) -> bool:
        chosen = self.chosen is None or any(_below(name, top) for top in self.chosen)
        return chosen and not any(_below(name, top) for top in self.shared)

    def _unconvertible(self) -> Iterator[tuple[str, str]]:
        """(name, class) of chosen parts that have weights of their own but are
        no layer of a known kind.
        """
        for name, module in self.net.named_modules():
            kind = type(module).__name__
            if isinstance(module, _FUSED) and self._in(name):
                yield name, kind
            if isinstance(module, (*Convertible, *_ELEMENTWISE)):
                continue
            for own, parameter in module.named_parameters(name, recurse=False):
                matrix = not is_lazy(parameter) and sum(size > 1 for size in parameter.shape) > 1
                if matrix and self._in(own):
                    yield (name, kind) if hasattr(nn, kind) else (own, kind)


def _below(name: str, top: str) -> bool:
    return name == top or name.startswith(top + ".") or not top
