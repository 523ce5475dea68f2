"""A subset of a network: whole tensors and parts, the printed table, and what is refused."""

import pytest
import torch
from conftest import Untouched
from nets import mlp
from torch import Size, Tensor, nn

from bayesnn.functional import parameters
from bayesnn.subset import (
    Subset,
    everything,
    largest_magnitude,
    named,
)

SHAPE = {"b": Size([2, 3]), "a": Size([4]), "c": Size([])}


def test_taken_values_are_clones_without_gradient(untouched: Untouched) -> None:
    net = mlp()
    for subset in (everything(net), largest_magnitude(net, 5)):
        with untouched(net):
            for value in subset.take(net).values():
                assert not value.requires_grad
                value.add_(1)


def test_put_carries_gradients_and_writes_nothing(untouched: Untouched) -> None:
    net = mlp()
    subset = largest_magnitude(net, 5)
    values = {name: value.requires_grad_() for name, value in subset.take(net).items()}
    with untouched(net):
        put = subset.put(parameters(net), values)
        sum(value.square().sum() for value in put.values()).backward()  # type: ignore[union-attr]
    for value in values.values():
        torch.testing.assert_close(value.grad, 2 * value.detach())


def test_whole_tensors_keep_their_shape_and_parts_are_vectors() -> None:
    net = mlp()
    subset = named(net, "0.weight") | Subset(named(net, "0").shape, {"2.weight": torch.tensor([1, 6])})
    assert {name: subset.event_shape(name) for name in subset.names} == {"0.weight": (4, 3), "2.weight": (2,)}
    assert (len(subset), subset.count("0.weight"), subset.count("2.bias")) == (14, 12, 0)
    assert (named(net, "0") | named(net, "2")).fingerprint() == everything(net).fingerprint()


def test_the_printed_table() -> None:
    net = mlp()
    subset = named(net, "2") | Subset(named(net, "2").shape, {"0.weight": torch.tensor([0])})
    assert str(subset).splitlines() == [
        "block       shape              random",
        "-------------------------------------",
        "0.weight    (4, 3)                  1",
        "2.weight    (2, 4)                  8",
        "2.bias      (2,)                    2",
        "all blocks  26 in the network      11",
    ]


REFUSED: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "unknown parameter": ({"z": None}, "no parameter 'z'; it has b, a, c"),
    "empty": ({"a": torch.tensor([], dtype=torch.long)}, "'a' must be a non-empty vector of integers"),
    "matrix": ({"a": torch.zeros(1, 1, dtype=torch.long)}, "'a' must be a non-empty vector of integers"),
    "mask": ({"a": torch.tensor([True, False])}, "'a' must be a non-empty vector of integers"),
    "float": ({"a": torch.tensor([0.0])}, "'a' must be a non-empty vector of integers"),
    "repeated": ({"a": torch.tensor([1, 2, 1])}, "an index of 'a' is repeated"),
    "beyond": ({"a": torch.tensor([0, 4])}, "'a' has entries 0 to 3, but index 4"),
    "negative": ({"a": torch.tensor([-1, 9])}, "'a' has entries 0 to 3, but index -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_indices_that_are_refused(case: str) -> None:
    index, message = REFUSED[case]
    with pytest.raises(ValueError, match="Subset") as error:
        Subset(SHAPE, index)
    assert message in str(error.value)


def test_uses_with_another_network_are_refused() -> None:
    net, other = mlp(), mlp(hidden=5)
    with pytest.raises(ValueError, match=r"'0.weight' has shape \(4, 3\), but this one has shape \(5, 3\)"):
        everything(net).take(other)
    with pytest.raises(ValueError, match="has no such parameter"):
        everything(net).take(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="different networks"):
        everything(net) | everything(other)
    with pytest.raises(
        ValueError, match=r"'0.bias' has random entries of shape \(4,\), but its value has shape \(5,\)"
    ):
        named(net, "0.bias").put(parameters(net), {"0.bias": torch.zeros(5)})
