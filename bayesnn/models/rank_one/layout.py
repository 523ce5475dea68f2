"""The layout of a batch that members share: blocks of rows, the first member's first."""

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from bayesnn.functional import Inputs, batch_size


def tile(x: Inputs, members: int) -> Inputs:
    """The batch once for every member, [member * batch, ...]: rows 0 ... batch - 1 are the first
    member's.

    Raises:
        ValueError: fewer than one member; tensors without a common batch axis.

    >>> tile(torch.tensor([1, 2]), 3)
    tensor([1, 2, 1, 2, 1, 2])
    """
    check_members(members, "tile")
    batch_size(x)  # raises where the tensors have no common batch axis
    # keeps channels_last
    tiled: Inputs = pytree.tree_map_only(Tensor, lambda leaf: torch.cat([leaf] * members), x)
    return tiled


def shared_batch(x: Inputs, members: int) -> Inputs:
    """The batch as it is, every member having an equal share: the first batch / member rows are
    the first member's.

    Raises:
        ValueError: a batch that cannot be divided by the members.

    >>> shared_batch(torch.arange(6), 3).view(3, 2)[0]
    tensor([0, 1])
    """
    check_members(members, "shared_batch")
    check_divisible(batch_size(x), members, "shared_batch")
    return x


def by_member(rows: Tensor, members: int) -> Tensor:
    """[member * batch, ...] in blocks -> [member, batch, ...], a view.

    Raises:
        ValueError: rows that cannot be divided by the members.
    """
    check_divisible(len(rows), members, "by_member")
    return rows.unflatten(0, (members, -1))


def check_members(members: int, caller: str) -> None:
    """Refuse fewer than one member."""
    if members != int(members) or members < 1:
        raise ValueError(f"{caller}: members is a number from 1, not {members!r}")


def check_divisible(rows: int, members: int, caller: str) -> None:
    """Refuse rows that members cannot share equally."""
    if rows % members:
        raise ValueError(
            f"{caller}: {rows} rows cannot be shared by {members} members; give a batch of {rows // members * members} "
            f"or {(rows // members + 1) * members} (DataLoader(..., drop_last=True) drops a smaller last batch), or "
            "tile(x, members), which shows every example to every member"
        )


def entry_name(layer: str, key: str) -> str:
    """The name of a layer's own tensor in the network; that of a network of one layer is the key.

    >>> entry_name("0", "r"), entry_name("", "r")
    ('0.r', 'r')
    """
    return f"{layer}.{key}" if layer else key
