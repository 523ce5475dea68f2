"""Stateless calls of every kind of network: other weights, gradients, ties, chunks; nothing of the
network changes.
"""

import copy
import re
from typing import Any

import pytest
import torch
from conftest import Untouched
from nets import NETS, TORCHVISION, Tied, mlp
from torch import Tensor, nn

from bayesnn.functional import (
    batch_size,
    call,
    call_chunks,
    chunks,
    parameters,
)

every_net = pytest.mark.parametrize("kind", NETS)


every_large_net = pytest.mark.parametrize("kind", [*NETS, *TORCHVISION])


def moved(net: nn.Module) -> dict[str, Tensor]:
    """Other values than the network's own, for every parameter."""
    return {name: value + 0.1 * torch.randn_like(value) for name, value in parameters(net).items()}


def loaded(net: nn.Module, values: dict[str, Tensor]) -> nn.Module:
    """A copy of the network that holds the values: what `call` must agree with."""
    held = copy.deepcopy(net)
    with torch.no_grad():
        for name, parameter in held.named_parameters():
            parameter.copy_(values[name])
    return held


def run(net: nn.Module, x: Any) -> Any:
    if isinstance(x, dict):
        return net(**x)
    return net(*x) if isinstance(x, tuple) else net(x)


@every_large_net
def test_call_is_the_network_with_other_weights(kind: str, untouched: Untouched) -> None:
    net, x = (NETS | TORCHVISION)[kind]()
    values = moved(net)
    with untouched(net):
        outputs = call(net, values, x)
    torch.testing.assert_close(outputs, run(loaded(net, values), x).detach())


@every_net
def test_gradients_reach_the_values_and_never_the_network(kind: str, untouched: Untouched) -> None:
    net, x = NETS[kind]()
    values = {name: value.requires_grad_() for name, value in moved(net).items()}
    with untouched(net):
        gradients = torch.autograd.grad(call(net, values, x).square().sum(), list(values.values()))
    held = loaded(net, values)
    run(held, x).square().sum().backward()
    for (name, parameter), gradient in zip(held.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, msg=name)


def test_values_that_are_not_named_are_the_networks_own_without_gradient() -> None:
    net = mlp()
    bias = torch.tensor([5.0, 7.0], requires_grad=True)
    outputs = call(net, {"2.bias": bias}, torch.zeros(1, 3))
    torch.testing.assert_close(outputs, net(torch.zeros(1, 3)) - net[2].bias + bias)
    assert torch.autograd.grad(outputs.sum(), bias)[0].tolist() == [1.0, 1.0]
    assert not call(net, {}, torch.zeros(1, 3)).requires_grad


@every_net
def test_calls_in_chunks_are_the_call_on_all(kind: str, untouched: Untouched) -> None:
    net, x = NETS[kind]()
    values = moved(net)
    with untouched(net):
        outputs = call_chunks(net, values, list(chunks(x, 2)))
    torch.testing.assert_close(outputs, call(net, values, x))


def test_tied_weights_stay_tied_and_go_by_their_first_name() -> None:
    net = Tied().eval()
    assert list(parameters(net)) == ["encoder.weight", "decoder.bias", "head.weight", "head.bias"]
    zeros = call(net, {"encoder.weight": torch.zeros(3, 3)}, torch.randn(2, 3))
    torch.testing.assert_close(zeros, net.head(net.decoder.bias.tanh()).detach().expand(2, 2))
    with pytest.raises(ValueError, match=r"no parameter 'decoder.weight' \(a tied parameter goes by its first name\)"):
        call(net, {"decoder.weight": torch.zeros(3, 3)}, torch.randn(2, 3))


def test_training_mode_writes_nothing_back(untouched: Untouched) -> None:
    net, x = NETS["batch_norm"]()
    net.train()
    with untouched(net):
        call(net, {}, x)


def test_outputs_that_are_no_tensor() -> None:
    with pytest.raises(TypeError, match="LSTM returns tuple, not one tensor"):
        call(nn.LSTM(2, 3), {}, torch.zeros(4, 2))


def test_batches_of_tuples_and_dicts() -> None:
    x: dict[str, Any] = {"a": torch.arange(5), "b": (torch.arange(10).reshape(5, 2), None), "flag": True}
    assert batch_size(x) == 5
    parts: list[Any] = list(chunks(x, 2))
    assert [batch_size(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part["a"] for part in parts]), x["a"])
    assert parts[0]["flag"] is True


@pytest.mark.parametrize("x", [(torch.zeros(3), torch.zeros(2)), (torch.zeros(3), torch.tensor(1.0)), ()])
def test_inputs_without_a_common_batch(x: tuple[Tensor, ...]) -> None:
    shapes = [tuple(t.shape) for t in x]
    with pytest.raises(ValueError, match=re.escape(f"the batch as its first axis; their shapes are {shapes}")):
        batch_size(x)
