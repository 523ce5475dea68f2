"""The helpers of the tests find what they are there to find."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import NETS, mlp
from snapshot import unchanged
from statistical import assert_mean, assert_same_mean, bound
from torch import nn


def _written_and_restored(net: Any) -> None:
    with torch.no_grad():
        net[0].weight.add_(1).sub_(1)


CHANGES: dict[str, Callable[[Any], object]] = {
    "weight": lambda net: nn.init.zeros_(net[0].weight),
    "written and restored": _written_and_restored,
    "gradient": lambda net: net(torch.zeros(1, 3)).sum().backward(),
    "mode": lambda net: net.train(),
    "requires_grad": lambda net: net[2].bias.requires_grad_(requires_grad=False),
    "hook": lambda net: net[1].register_forward_hook(lambda *_: None),
    "module": lambda net: net.__setitem__(1, nn.ReLU()),
    "type": lambda net: setattr(net[1], "__class__", nn.ReLU),
    "attribute": lambda net: setattr(net[0], "cache", torch.zeros(1)),
    "parameter": lambda net: setattr(net[0], "weight", nn.Parameter(net[0].weight.detach().clone())),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_network_is_found(change: str) -> None:
    net = mlp()
    with pytest.raises(AssertionError, match="the network was changed"), unchanged(net):
        CHANGES[change](net)


def test_buffers_and_hidden_lists_count() -> None:
    net, x = NETS["batch_norm"]()
    with pytest.raises(AssertionError, match="the network was changed"), unchanged(net):
        _ = net.train()(x), net.eval()
    net, x = NETS["lstm"]()
    with pytest.raises(AssertionError, match="_flat_weights"), unchanged(net):
        torch.func.functional_call(net, {name: p.detach() for name, p in net.named_parameters()}, x)


def test_using_a_network_is_no_change() -> None:
    for make in NETS.values():
        net, x = make()
        with unchanged(net):
            _ = net(**x) if isinstance(x, dict) else net(*x) if isinstance(x, tuple) else net(x)


def test_the_mean_is_tested_at_its_rate() -> None:
    assert bound() == pytest.approx(4.8916, abs=1e-3)
    draws = torch.randn(10_000, 2)
    assert_mean(draws, 0.0)
    assert_same_mean(draws[:, 0], draws[:, 1])
    with pytest.raises(AssertionError, match=r"where 0\.1 was expected"):
        assert_mean(draws, torch.tensor([0.0, 0.1]))
    with pytest.raises(AssertionError):
        assert_same_mean(draws[:, 0], draws[:, 1] + 0.2)
