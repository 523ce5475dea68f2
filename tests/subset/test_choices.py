"""The ways to choose a subset: by name, by type, by magnitude, at random, within another."""

from collections.abc import Callable

import pytest
import torch
from conftest import Untouched
from nets import NETS, Recurrent, Tied, mlp
from torch import Tensor, nn

from bayesnn import likelihoods
from bayesnn.functional import parameters
from bayesnn.subset import (
    Subset,
    everything,
    largest_magnitude,
    largest_variance,
    last_layer,
    named,
    of_type,
    random,
)

WAYS: dict[str, tuple[Callable[[nn.Module], Subset], tuple[str, ...]]] = {
    "everything": (everything, ("0.weight", "0.bias", "2.weight", "2.bias")),
    "parameter": (lambda net: named(net, "2.bias"), ("2.bias",)),
    "module": (lambda net: named(net, "2"), ("2.weight", "2.bias")),
    "several, in the network's order": (lambda net: named(net, "2", "0.bias"), ("0.bias", "2.weight", "2.bias")),
    "type": (lambda net: of_type(net, nn.Linear), ("0.weight", "0.bias", "2.weight", "2.bias")),
    "last layer": (last_layer, ("2.weight", "2.bias")),
}


@pytest.mark.parametrize("way", WAYS)
def test_whole_parameters_by_name_and_type(way: str, untouched: Untouched) -> None:
    net = mlp()
    choose, names = WAYS[way]
    with untouched(net):
        subset = choose(net)
    assert subset.names == names
    assert all(index is None for index in subset.index.values())


def test_names_are_those_of_modules_not_of_prefixes() -> None:
    net = nn.ModuleDict({"fc": nn.Linear(1, 1), "fc2": nn.Linear(1, 1)})
    assert named(net, "fc").names == ("fc.weight", "fc.bias")


def test_types_reach_modules_inside_modules() -> None:
    net = Recurrent()
    assert of_type(net, nn.LSTM).names == tuple(f"lstm.{name}" for name, _ in net.lstm.named_parameters())
    assert of_type(net, Recurrent).names == everything(net).names
    assert last_layer(net).names == ("head.weight", "head.bias")


def test_tied_weights_are_one_block_under_any_of_their_names() -> None:
    net = Tied()
    assert everything(net).names == ("encoder.weight", "decoder.bias", "head.weight", "head.bias")
    assert named(net, "decoder").names == ("encoder.weight", "decoder.bias")
    assert named(net, "decoder.weight").names == ("encoder.weight",)
    assert len(everything(net)) == sum(p.numel() for p in net.parameters())
    assert last_layer(nn.ModuleList([net.encoder, net.decoder])).names == ("0.weight", "1.bias")


@pytest.mark.parametrize(
    ("wrong", "right"), [("2.wieght", "'2.weight'"), ("layer3.bias", "did you mean"), ("Q", "it has 0.weight, 0.bias")]
)
def test_an_unknown_name_gets_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match="no parameter or module") as error:
        named(mlp(), wrong)
    assert right in str(error.value)


def test_largest_magnitude_takes_the_largest_over_the_whole_network(untouched: Untouched) -> None:
    net = mlp()
    with untouched(net):
        subset = largest_magnitude(net, 7)
    taken = torch.cat([value.abs() for value in subset.take(net).values()])
    everywhere = torch.cat([value.abs().flatten() for value in parameters(net).values()])
    assert torch.equal(taken.sort().values, everywhere.sort().values[-7:])


def test_random_is_uniform_reproducible_and_leaves_the_global_generator_alone() -> None:
    net = mlp()
    state = torch.get_rng_state()
    subsets = [random(net, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(subset) for subset in subsets] == [5, 5, 5]
    assert subsets[0].fingerprint() == subsets[1].fingerprint() != subsets[2].fingerprint()
    assert len(random(net, 26)) == 26


CHOICES: dict[str, Callable[..., Subset]] = {
    "magnitude": largest_magnitude,
    "random": random,
    "variance": lambda net, k, **options: largest_variance(
        net, [(torch.randn(8, 3), torch.zeros(8))], likelihoods.categorical, k, **options
    ),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_within_is_respected(choice: str) -> None:
    net = mlp()
    inside = named(net, "0.bias") | Subset(everything(net).shape, {"2.weight": torch.tensor([0, 5, 7])})
    chosen = CHOICES[choice](net, 4, within=inside)
    assert len(chosen) == 4
    assert len(chosen - inside) == 0
    assert CHOICES[choice](net, 7, within=inside).fingerprint() == inside.fingerprint()


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("k", [0, -1, 27])
def test_too_many_or_too_few(choice: str, k: int, untouched: Untouched) -> None:
    net = mlp()
    with untouched(net), pytest.raises(ValueError, match=f"k = {k} weights asked for, but it must be between 1 and 26"):
        CHOICES[choice](net, k)


@pytest.mark.parametrize("choice", CHOICES)
def test_within_of_another_network(choice: str) -> None:
    with pytest.raises(ValueError, match="belongs to another network"):
        CHOICES[choice](mlp(), 3, within=everything(NETS["lstm"]()[0]))


def test_choices_that_match_nothing() -> None:
    with pytest.raises(ValueError, match="give at least one name"):
        named(mlp())
    with pytest.raises(ValueError, match="no module of type LSTM has parameters; modules with parameters are Linear"):
        of_type(mlp(), nn.LSTM)
    for choose in (everything, last_layer):
        with pytest.raises(ValueError, match="ReLU has no parameters"):
            choose(nn.ReLU())


class HeadFirst(nn.Module):
    """The head is defined before the body, and an auxiliary head is called after both."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.auxiliary = nn.Linear(4, 2), nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x).tanh()
        out = self.head(h)
        self.auxiliary(h)
        return out


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("lstm", ("head.weight", "head.bias")),
        ("two names", ("layers.1.weight", "layers.1.bias")),
        ("temperature", ("temperature",)),
        ("tuple", ("right.weight",)),
    ],
)
def test_the_last_layer_in_order_of_use(kind: str, names: tuple[str, ...]) -> None:
    net, x = NETS[kind]()
    assert last_layer(net, x=x).names == names


def test_the_last_layer_is_one_that_the_outputs_depend_on(untouched: Untouched) -> None:
    net, x = HeadFirst(), torch.randn(2, 3)
    assert last_layer(net).names == ("auxiliary.weight", "auxiliary.bias")
    with untouched(net):
        assert last_layer(net, x=x).names == ("head.weight", "head.bias")


def test_a_matrix_tied_to_the_embedding_is_the_last_layer_with_the_decoder_s_bias() -> None:
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    net[1].weight = net[0].weight
    assert last_layer(net, x=torch.tensor([0, 1])).names == ("0.weight", "1.bias")


def test_without_any_parameter_in_use_there_is_no_last_layer() -> None:
    net = nn.Linear(3, 2)
    net.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="the network's outputs for these inputs depend on no parameter"):
        last_layer(net, x=torch.zeros(1, 3))
