"""A network with members: one pass for all of them, and each as a plain network."""

import copy
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn.functional import Inputs, alone, call, check_evaluation_mode, holding
from bayesnn.functional.call import tensors
from bayesnn.models.rank_one.layer import RankOne
from bayesnn.models.rank_one.layout import by_member, entry_name, tile
from bayesnn.models.rank_one.norm import MemberNorm


class RankOneNet(nn.Module):
    """x -> the outputs of all members, [member, batch, ...], in one pass over the tiled batch.

    Made by `batch_ensemble` and `latent_rank_one`. With encoded vectors every call draws fresh
    codes, one a member and layer.

    Args:
        net: the network with converted layers.
        members: how many.

    Attributes:
        net: the same; rows in blocks give rows in blocks.
        members: how many.
    """

    def __init__(self, net: nn.Module, members: int) -> None:
        super().__init__()
        self.net, self.members = net, members
        self.training = net.training
        self._checked: set[tuple[tuple[int, ...], ...]] = set()
        # in a tuple: it has no values, and is not to be trained or moved
        self._plain = (_plain(net),)

    @property
    def layers(self) -> dict[str, RankOne]:
        """{name: layer} of the converted layers, by the names that the given network had."""
        return {name: module for name, module in self.net.named_modules() if isinstance(module, RankOne)}

    def forward(self, x: Inputs) -> Tensor:
        """Every member's outputs at the same x [batch, ...]: [member, batch, ...].

        Raises:
            ValueError: rows are no examples, as `check` finds at the first call.
        """
        self.check_once(x)
        return by_member(self.rows(tile(x, self.members), self.draw()), self.members)

    def rows(self, x: Inputs, vectors: Mapping[str, Tensor] | None = None) -> Tensor:
        """One pass over rows in blocks, [member * batch, ...] -> [member * batch, ...].

        Args:
            x: the rows, such as `tile(x, members)` or `shared_batch(x, members)`.
            vectors: {"<layer>.r" or "<layer>.s": [member, width]} in place of the layers' own.
        """
        args, keywords = ((), dict(x)) if isinstance(x, Mapping) else (x if isinstance(x, tuple) else (x,), {})
        with alone(), self._holding(vectors or {}):
            rows: Any = self.net(*args, **keywords)
        if not isinstance(rows, Tensor):
            raise TypeError(
                f"RankOneNet: the network returns {type(rows).__name__}, not one tensor; convert Output(net, 'out'), "
                "with the name or place of the tensor"
            )
        return rows

    def _holding(self, vectors: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        if not vectors:
            return nullcontext()
        own = dict(self.net.named_parameters())
        return holding(self.net, {id(own[name]): value for name, value in vectors.items()})

    def draw(self) -> dict[str, Tensor]:
        """{"<layer>.r": r_hat [member, width]} with fresh codes; empty without codes."""
        return {
            entry_name(name, "r"): layer.code.draw(layer.r)
            for name, layer in self.layers.items()
            if layer.code is not None
        }

    def dense(self, member: "int | Tensor", vectors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """One member's parameters and buffers, by the names that the given network had;
        differentiable.

        Args:
            member: which.
            vectors: {"<layer>.r" or "<layer>.s": [width]} in place of the layers' own.
        """
        given = vectors or {}
        state: dict[str, Tensor] = dict(_values(self.net, remove_duplicate=False))
        for name, module in self.net.named_modules():
            prefix = name + "." if name else ""
            if isinstance(module, RankOne):
                r, s = (given.get(prefix + key, getattr(module, key)[member]) for key in ("r", "s"))
                state[prefix + "weight"] = module.dense(r, s)
                if module.bias is not None:
                    state[prefix + "bias"] = module.bias[member]
            elif isinstance(module, MemberNorm):
                state.update((prefix + key, value[member]) for key, value in _values(module) if value.dim())
        return {name: state[name] for name, _ in _values(self.plain)}

    @torch.no_grad()
    def member(self, j: int) -> nn.Module:
        """A copy of member j as a plain network, in evaluation mode and with
        codes at their mean.
        """
        if not 0 <= j < self.members:
            raise ValueError(f"RankOneNet.member: there are members 0 to {self.members - 1}, not {j}")
        codes = {name: (layer.code, layer.r[j]) for name, layer in self.layers.items() if layer.code is not None}
        vectors = {entry_name(name, "r"): code.vector(code.moments(r)[0], r) for name, (code, r) in codes.items()}
        state = self.dense(j, vectors)
        memo: dict[int, Any] = {
            id(held): nn.Parameter(state[name].clone(), held.requires_grad)
            if isinstance(held, nn.Parameter)
            else state[name].clone()
            for name, held in _values(self.plain)
        }
        return copy.deepcopy(self.plain, memo)

    @torch.no_grad()
    def check(self, x: Inputs) -> None:
        """Compare every member's rows of the tiled pass with that member alone.

        They differ where a network moves the batch from the first axis before a converted layer
        (sequences first), or mixes examples: a layer would then take one member's rows for
        another's, without an error of its own.

        The vectors r are multiplied by random numbers here, so that members differ also where they
        began as equals. Of a network that is random in evaluation mode nothing can be said.

        Raises:
            ValueError: they differ by more than rounding; a layer in training mode.
        """
        check_evaluation_mode(self.net, "RankOneNet.check")
        vectors = _distinct({entry_name(name, "r"): layer.r for name, layer in self.layers.items()} | self.draw())
        blocks = by_member(self.rows(tile(x, self.members), vectors), self.members)
        for j, block in enumerate(blocks):
            own = self.dense(j, {name: vector[j] for name, vector in vectors.items()})
            alone, tolerance = call(self.plain, own, x), _tolerance(block)
            difference, size = (alone - block).abs().max(), block.abs().max()
            if not difference <= tolerance * size:  # nor where it is not a number
                if (call(self.plain, own, x) - alone).abs().max() > tolerance * size:
                    return
                raise ValueError(
                    f"RankOneNet.check: the outputs of member {j} differ by {float(difference):.2g} of "
                    f"{float(size):.2g} from those of its own network; is the batch the first axis of the inputs of "
                    "every converted layer? Leave the others shared, shared=(name,)"
                )

    def check_once(self, x: Inputs) -> None:
        """`check` in evaluation mode, at the first call with inputs of this shape.

        Modes and random states stay as they are.
        """
        kind = tuple(tuple(leaf.shape[1:]) for leaf in tensors(x))
        if kind in self._checked or torch.compiler.is_compiling() or not all(map(_is_finite, tensors(x))):
            return
        modes = {module: module.training for module in self.net.modules()}
        devices = {leaf.device for leaf in self.parameters() if leaf.is_cuda}
        with alone(), torch.random.fork_rng(devices):
            try:
                self.net.eval()
                self.check(x)
            finally:
                for module, mode in modes.items():
                    module.training = mode
        self._checked.add(kind)

    @property
    def plain(self) -> nn.Module:
        """The given network's layers in evaluation mode, without values: what
        `dense` is put into.
        """
        return self._plain[0]

    def extra_repr(self) -> str:
        """The number of members."""
        return f"members={self.members}"


def replaced(net: nn.Module, parents: Iterable[nn.Module], replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The network with some of its modules replaced, in all places where they occur."""
    for parent in parents:
        for name, child in parent._modules.items():
            if child is not None and child in replacements:
                parent._modules[name] = replacements[child]
    return replacements.get(net, net)


def _distinct(vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vectors with every entry times a number from 1 / 2 to 3 / 2, the same each time."""
    drawn = torch.Generator().manual_seed(0)
    return {name: value * (0.5 + torch.rand(value.shape, generator=drawn).to(value)) for name, value in vectors.items()}


def _tolerance(outputs: Tensor) -> float:
    """Of a relative difference that is rounding; on CUDA, single precision may have 10 bits."""
    coarse = outputs.is_cuda and outputs.dtype == torch.float32
    return max(1e-3, 16 * (2**-10 if coarse else torch.finfo(outputs.dtype).eps))


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def _plain(net: nn.Module) -> nn.Module:
    """A copy with plain layers; its parameters and buffers have shapes, and no
    values or memory.
    """
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in net.parameters()}
    memo.update((id(buffer), buffer.to("meta")) for buffer in net.buffers())
    plain = copy.deepcopy(net, memo)
    parents = list(plain.modules())
    replacements: dict[nn.Module, nn.Module] = {}
    for module in parents:
        if isinstance(module, RankOne):
            layer = module.layer
            layer.weight = nn.Parameter(
                torch.empty_like(layer.weight)
            )  # two layers may share one matrix, not its members
            layer.bias = None if module.bias is None else nn.Parameter(module.bias[0])
            replacements[module] = layer
        elif isinstance(module, MemberNorm):
            replacements[module] = module.plain()
    return replaced(plain, parents, replacements).eval()


def _values(module: nn.Module, *, remove_duplicate: bool = True) -> list[tuple[str, Tensor]]:
    """(name, parameter or buffer)."""
    held = module.named_parameters(remove_duplicate=remove_duplicate)
    return [*held, *module.named_buffers(remove_duplicate=remove_duplicate)]
