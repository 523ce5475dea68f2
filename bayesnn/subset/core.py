"""`Subset`: some entries of some parameters of one network."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor, nn

from bayesnn.functional import alone


@dataclass(frozen=True, eq=False)
class Subset:
    """Which scalars of which parameters are random.

    Build one with `everything`, `named`, `of_type`, `last_layer`, `largest_magnitude`,
    `largest_variance` or `random`, and combine them: `a | b` (union), `a & b` (intersection),
    `a - b` (difference). `print` shows a table.

    Args:
        shape: {parameter name: shape} of *all* the network's parameters, in the network's own
            order; a tied parameter stands once, under its first name.
        index: {parameter name: flat indices of its random entries, sorted; None = the whole
            tensor}. Parameters that are not named have no random entry.

    Raises:
        ValueError: an index is empty, out of range, repeated, or names a parameter that `shape`
            lacks.

    >>> from bayesnn.subset import named
    >>> subset = named(nn.Linear(3, 2), "weight")
    >>> len(subset), subset.names
    (6, ('weight',))
    """

    shape: Mapping[str, Size]
    index: Mapping[str, Tensor | None]

    def __post_init__(self) -> None:
        unknown = [name for name in self.index if name not in self.shape]
        if unknown:
            raise ValueError(f"Subset: the network has no parameter {unknown[0]!r}; it has {', '.join(self.shape)}")
        ordered = {name: _tidy(name, self.index[name], self.shape[name]) for name in self.shape if name in self.index}
        object.__setattr__(self, "index", ordered)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters with random entries, in the network's order: the random *blocks*."""
        return tuple(self.index)

    def __len__(self) -> int:
        """The number of random scalars."""
        return sum(self.count(name) for name in self.index)

    def count(self, name: str) -> int:
        """The number of random entries of one parameter."""
        if name not in self.index:
            return 0
        chosen = self.index[name]
        return self.shape[name].numel() if chosen is None else len(chosen)

    def event_shape(self, name: str) -> Size:
        """The shape of a block's value: the parameter's own shape where all of
        it is random, else [count].
        """
        return self.shape[name] if self.index[name] is None else Size([self.count(name)])

    def take(self, params: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The selected entries, {name: value} (clones), of a network or of full
        parameter tensors.
        """
        with alone():
            full = _tensors(params)
            self._check(full)
            return {name: _entries(full[name].detach(), chosen).clone() for name, chosen in self.index.items()}

    def put(self, params: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Full tensors of the selected parameters, with the selected entries
        replaced, out of place.
        """
        full = {}
        for name, chosen in self.index.items():
            if values[name].shape != self.event_shape(name):
                raise ValueError(
                    f"Subset: {name!r} has random entries of shape {tuple(self.event_shape(name))}, but its value has "
                    f"shape {tuple(values[name].shape)}"
                )
            if chosen is None:
                full[name] = values[name]
            else:
                whole = params[name]
                flat = whole.reshape(-1).scatter(0, chosen.to(whole.device), values[name])
                full[name] = flat.reshape(whole.shape)
        return full

    def __or__(self, other: "Subset") -> "Subset":
        """The entries of either."""
        return self._combine(other, torch.logical_or)

    def __and__(self, other: "Subset") -> "Subset":
        """The entries of both."""
        return self._combine(other, torch.logical_and)

    def __sub__(self, other: "Subset") -> "Subset":
        """The entries that the other lacks."""
        return self._combine(other, lambda a, b: a & ~b)

    def fingerprint(self) -> str:
        """A digest of names, shapes and indices, by which checkpoints recognise
        their own subset.
        """
        digest = hashlib.sha256()
        for name, shape in self.shape.items():
            digest.update(f"{name}: {tuple(shape)}, {self.count(name)} random\n".encode())
        for chosen in self.index.values():
            if chosen is not None:
                digest.update(chosen.cpu().numpy().tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        """A table: block, shape, how many of its entries are random."""
        rows = [(name, str(tuple(self.shape[name])), f"{self.count(name):,}") for name in self.index]
        total = sum(shape.numel() for shape in self.shape.values())
        rows.append(("all blocks", f"{total:,} in the network", f"{len(self):,}"))
        return table(("block", "shape", "random"), rows)

    def _combine(self, other: "Subset", rule: Callable[[Tensor, Tensor], Tensor]) -> "Subset":
        if dict(self.shape) != dict(other.shape):
            raise ValueError("Subset: the two belong to different networks (their parameters' names or shapes differ)")
        index: dict[str, Tensor | None] = {}
        for name in self.shape:
            if name in self.index or name in other.index:
                chosen = rule(self._mask(name), other._mask(name)).nonzero().squeeze(1)
                if len(chosen):
                    index[name] = chosen
        return Subset(self.shape, index)

    def _mask(self, name: str) -> Tensor:
        mask = torch.zeros(self.shape[name].numel(), dtype=torch.bool)
        if name in self.index:
            chosen = self.index[name]
            mask[... if chosen is None else chosen.cpu()] = True
        return mask

    def _check(self, full: Mapping[str, Tensor]) -> None:
        for name in self.index:
            shape = full[name].shape if name in full else None
            if shape != self.shape[name]:
                what = "no such parameter" if shape is None else f"shape {tuple(shape)}"
                raise ValueError(
                    f"Subset: it was chosen for a network whose {name!r} has shape {tuple(self.shape[name])}, but this "
                    f"one has {what}; choose the subset from the network that it is used with"
                )


def shapes(net: nn.Module) -> dict[str, Size]:
    """{name: shape} of a network's parameters; a network without parameters is an error."""
    parameters = {name: parameter.shape for name, parameter in net.named_parameters()}
    if not parameters:
        raise ValueError(f"Subset: {type(net).__name__} has no parameters, so nothing of it can be random")
    return parameters


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Aligned columns, to the left but for the counts under "random"."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    right = header.index("random") if "random" in header else -1
    text = ["  ".join(_padded(line[i], widths[i], i == right) for i in range(len(header))) for line in lines]
    rule = "-" * max(len(line.rstrip()) for line in text)
    return "\n".join(line.rstrip() for line in (text[0], rule, *text[1:]))


def _padded(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


def _tensors(params: nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return dict(params.named_parameters()) if isinstance(params, nn.Module) else params


def _entries(value: Tensor, chosen: Tensor | None) -> Tensor:
    return value if chosen is None else value.reshape(-1)[chosen.to(value.device)]


def _tidy(name: str, chosen: Tensor | None, shape: Size) -> Tensor | None:
    if chosen is None:
        return None
    chosen = torch.as_tensor(chosen)
    if chosen.dim() != 1 or chosen.dtype.is_floating_point or chosen.dtype == torch.bool or not len(chosen):
        raise ValueError(f"Subset: the indices of {name!r} must be a non-empty vector of integers")
    ordered = torch.unique(chosen.long())
    if len(ordered) != len(chosen):
        raise ValueError(f"Subset: an index of {name!r} is repeated")
    if ordered[0] < 0 or ordered[-1] >= shape.numel():
        wrong = int(ordered[0] if ordered[0] < 0 else ordered[-1])
        raise ValueError(f"Subset: {name!r} has entries 0 to {shape.numel() - 1}, but index {wrong} was asked for")
    return None if len(ordered) == shape.numel() else ordered
