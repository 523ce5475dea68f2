"""Taking and putting, union and difference, fingerprints: laws that hold for every subset."""

import pickle

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import mlp
from torch import Size, Tensor, nn

from bayesnn.subset import (
    Subset,
    everything,
)

SHAPE = {"b": Size([2, 3]), "a": Size([4]), "c": Size([])}


TOTAL = 11


positions = st.sets(st.integers(0, TOTAL - 1), min_size=1)


def subset_of(chosen: set[int]) -> Subset:
    """The subset of `SHAPE` with these positions of the concatenated entries."""
    index: dict[str, Tensor | None] = {}
    start = 0
    for name, shape in SHAPE.items():
        own = sorted(i - start for i in chosen if start <= i < start + shape.numel())
        if own:
            index[name] = torch.tensor(own)
        start += shape.numel()
    return Subset(SHAPE, index)


def positions_of(subset: Subset) -> set[int]:
    """The inverse of `subset_of`."""
    found: set[int] = set()
    start = 0
    for name, shape in SHAPE.items():
        if name in subset.index:
            chosen = subset.index[name]
            found |= {start + i for i in (range(shape.numel()) if chosen is None else chosen.tolist())}
        start += shape.numel()
    return found


def full(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPE.items()}


@given(positions)
def test_put_after_take_is_the_identity(chosen: set[int]) -> None:
    subset, params = subset_of(chosen), full(0)
    put = subset.put(params, subset.take(params))
    assert set(put) == set(subset.names)
    assert all(torch.equal(put[name], params[name]) for name in put)


@given(positions)
def test_take_after_put_is_the_identity_and_the_rest_stays(chosen: set[int]) -> None:
    subset, params, other = subset_of(chosen), full(0), full(1)
    values = subset.take(other)
    put = subset.put(params, values)
    assert all(torch.equal(value, values[name]) for name, value in subset.take({**params, **put}).items())
    joined = torch.cat([{**params, **put}[name].reshape(-1) for name in SHAPE])
    sources = [torch.cat([source[name].reshape(-1) for name in SHAPE]) for source in (params, other)]
    mask = torch.tensor([i in chosen for i in range(TOTAL)])
    assert torch.equal(joined, torch.where(mask, sources[1], sources[0]))


@given(positions, positions)
def test_set_operations_are_those_of_sets(left: set[int], right: set[int]) -> None:
    a, b = subset_of(left), subset_of(right)
    assert positions_of(a | b) == left | right
    assert positions_of(a & b) == left & right
    assert positions_of(a - b) == left - right
    assert len(a | b) + len(a & b) == len(a) + len(b)
    assert len(a - a) == 0


@given(positions, positions)
def test_fingerprints_tell_subsets_apart(left: set[int], right: set[int]) -> None:
    a, b = subset_of(left), subset_of(right)
    assert (a.fingerprint() == b.fingerprint()) == (left == right)
    assert pickle.loads(pickle.dumps(a)).fingerprint() == a.fingerprint()


def test_fingerprints_know_names_and_shapes() -> None:
    variants = [
        everything(mlp()),
        everything(mlp(hidden=5)),
        everything(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))),
        Subset({"a": Size([1]), "b": Size([1]), "ab": Size([1])}, {"a": None, "b": None}),
        Subset({"a": Size([1]), "b": Size([1]), "ab": Size([1])}, {"ab": None}),
    ]
    assert len({subset.fingerprint() for subset in variants}) == len(variants)


@settings(max_examples=20)
@given(positions, st.randoms(use_true_random=False))
def test_order_is_the_networks_own_however_it_was_given(chosen: set[int], shuffle: object) -> None:
    subset = subset_of(chosen)
    items = [(name, subset.index[name]) for name in reversed(subset.names)]
    mixed = {name: None if i is None else i[torch.randperm(len(i))] for name, i in items}
    again = Subset(SHAPE, mixed)
    assert again.names == subset.names
    assert again.fingerprint() == subset.fingerprint()
