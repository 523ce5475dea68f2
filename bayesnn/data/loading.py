"""From tensors to data sets, and from a loader back to tensors."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset


def split(
    x: Tensor,
    y: Tensor,
    *,
    train: int,
    validation: int = 0,
    stratified: bool = True,
    generator: torch.Generator | None = None,
) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """`(train, validation, test)`: a random partition; the test part is everything that the others
    leave.

    With `stratified` every class has its share of every part, to within one example (a class that
    holds most of the data: to within one for each other class); classes of equal size are exactly
    balanced where the parts' sizes are multiples of their number. Each part is in random order.

    Shapes: x `[n, ...]`, y `[n]` whole numbers (anything of length n with `stratified=False`). A
    part's tensors are `part.tensors`, its examples `part[i]`. `generator` (torch's global one by
    default) is on the CPU.

    Raises:
        ValueError: lengths that differ, sizes that are negative or exceed n together, y that has
            no classes.

    Source: systematic sampling within classes, with a random start in each: Cochran (1977),
    Sampling techniques, chapter 8.

        >>> import torch
        >>> from bayesnn.data import split
        >>> x, y = torch.randn(60, 3), torch.arange(60) % 2
        >>> train, validation, test = split(x, y, train=20, validation=10)
        >>> len(test), int(train.tensors[1].sum())
        (30, 10)
    """
    n = len(x)
    if len(y) != n:
        raise ValueError(f"split: {n} inputs but {len(y)} targets; give one target for each input")
    if train < 1 or validation < 0 or train + validation > n:
        raise ValueError(
            f"split: train={train} and validation={validation} out of {n} examples; "
            f"train must be 1 or more, validation 0 or more, together at most {n}"
        )
    order = _stratified_order(y, generator) if stratified else torch.randperm(n, generator=generator)
    parts = []
    for part in order.split([train, validation, n - train - validation]):
        index = part[torch.randperm(len(part), generator=generator)]
        parts.append(TensorDataset(x[index.to(x.device)], y[index.to(y.device)]))
    return parts[0], parts[1], parts[2]


def tensors(loader: Iterable[Any]) -> tuple[Any, Tensor]:
    """`(x, y)`: one pass over a loader of `(x, y)` batches, joined along the batch.

    Shapes: batches of x `[batch, ...]` and y `[batch, ...]` give `[n, ...]`. x may also be a
    tuple, a list or a dict of such tensors (also nested); a list comes back as a tuple, which is
    what a `DataLoader` was given. Device and dtype follow the batches; all of the data must fit
    into memory.

    Raises:
        ValueError: a loader without batches, a batch that is not a pair `(x, y)`, batches that do
            not fit together.

    Source: the inverse of `torch.utils.data.DataLoader(TensorDataset(x, y))`.

        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from bayesnn.data import tensors
        >>> x, y = tensors(DataLoader(TensorDataset(torch.ones(5, 2), torch.arange(5)), batch_size=2))
        >>> x.shape, y.tolist()
        (torch.Size([5, 2]), [0, 1, 2, 3, 4])
    """
    batches = []
    for i, batch in enumerate(loader):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            parts = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
            raise ValueError(
                f"tensors: batch {i} is a {type(batch).__name__}{parts}, not a pair (x, y); "
                "put several inputs into one x, as ((a, b), y) or ({'a': a, 'b': b}, y)"
            )
        batches.append(batch)
    if not batches:
        raise ValueError(
            "tensors: the loader gave no batch; its data set is empty, or drop_last=True with a batch_size above the "
            "number of examples, or it is an iterator that was used before"
        )
    return _joined([x for x, _ in batches], "x"), _joined([y for _, y in batches], "y")


def _stratified_order(y: Tensor, generator: torch.Generator | None) -> Tensor:
    """An order `[n]` of the examples in which every stretch has each class in proportion.

    The r-th example of a class of c gets the place (r + u) / c in [0, 1), with one random u for
    each class.
    """
    if y.ndim != 1 or y.is_floating_point() or y.is_complex():
        raise ValueError(
            f"split: y is {y.dtype} of the shape {tuple(y.shape)}, which are no classes; "
            "give whole numbers [n], or pass stratified=False"
        )
    shuffled = torch.randperm(len(y), generator=generator)
    _, kind, count = y.cpu()[shuffled].unique(return_inverse=True, return_counts=True)
    grouped = kind.argsort(stable=True)
    first = count.cumsum(0) - count
    rank = torch.empty_like(kind)
    rank[grouped] = torch.arange(len(y)) - first.repeat_interleave(count)
    start = torch.rand(len(count), generator=generator, dtype=torch.float64)
    return shuffled[((rank + start[kind]) / count[kind]).argsort()]


def _joined(values: list[Any], where: str) -> Any:
    first = values[0]
    if isinstance(first, Tensor) and all(isinstance(value, Tensor) for value in values):
        if len({(value.shape[1:], value.dtype) for value in values}) > 1 or first.ndim == 0:
            shapes = sorted({f"{str(value.dtype)[6:]} {tuple(value.shape)}" for value in values})
            raise ValueError(
                f"tensors: batches of {where} do not fit together: {', '.join(shapes[:4])}; pad or crop them "
                "in the loader's collate_fn to one shape after the batch axis"
            )
        return torch.cat(values)
    if isinstance(first, Mapping) and all(
        isinstance(value, Mapping) and value.keys() == first.keys() for value in values
    ):
        return {key: _joined([value[key] for value in values], f"{where}[{key!r}]") for key in first}
    if isinstance(first, tuple | list) and all(
        isinstance(value, tuple | list) and len(value) == len(first) for value in values
    ):
        return tuple(_joined([value[i] for value in values], f"{where}[{i}]") for i in range(len(first)))
    kinds = sorted({type(value).__name__ for value in values})
    raise ValueError(
        f"tensors: {where} is {' and '.join(kinds)} over the batches; every batch must give a tensor, or the same "
        "tuple or dict of tensors"
    )
