"""Gauss-Newton matrices against the dense oracle and the Hessian, and what the closed form of a last layer needs."""

from importlib import import_module
from typing import Any

import oracle
import pytest
import torch
from nets import NETS, mlp
from torch import Tensor, nn

from bayesnn import likelihoods
from bayesnn.functional import (
    call,
    ggn,
    ggn_diagonal,
    ggn_linear,
    linear_input,
    parameters,
)

JACOBIAN = import_module("bayesnn.functional.jacobian")  # the function has the module's name


FISHERS: dict[str, Any] = {
    "categorical": likelihoods.categorical,
    "bernoulli": likelihoods.bernoulli,
    "normal": likelihoods.normal(0.5),
    "poisson": likelihoods.poisson,
}


@pytest.mark.parametrize("name", FISHERS)
@pytest.mark.parametrize("kind", ["mlp", "conv", "tied", "lstm", "encoder", "dict"])
def test_ggn_equals_the_dense_one(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = NETS[kind]()
    function = lambda v, x: call(net, v, x)  # noqa: E731
    values = parameters(net)
    expected = oracle.ggn(function, values, x, FISHERS[name].fisher)
    monkeypatch.setattr(JACOBIAN, "MEMORY", 5_000)  # several chunks
    H = ggn(function, values, x, FISHERS[name].fisher)
    torch.testing.assert_close(H, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ggn_diagonal(function, values, x, FISHERS[name].fisher), H.diagonal())
    assert torch.equal(H, H.T)


TARGETS = {
    "categorical": torch.tensor([0, 1, 1]),
    "bernoulli": torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]),
    "normal": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
    "poisson": torch.tensor([[0.0, 3.0], [1.0, 2.0], [5.0, 0.0]]),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("bias", [True, False])
def test_ggn_of_a_last_layer_is_the_hessian_and_has_a_closed_form(name: str, bias: bool) -> None:
    """Where the network is linear in its values and the family exponential in its outputs, the two are one matrix."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=bias)).double()
    x = torch.randn(3, 3, dtype=torch.double)
    likelihood = FISHERS[name]
    values = {n: value for n, value in parameters(net).items() if n.startswith("2.")}
    y = TARGETS[name].double() if TARGETS[name].is_floating_point() else TARGETS[name]
    function = lambda v, x: call(net, v, x)  # noqa: E731
    H = ggn(function, values, x, likelihood.fisher)
    hessian = oracle.hessian(function, values, x, lambda outputs: likelihood(outputs).log_prob(y).sum())
    torch.testing.assert_close(H, hessian)
    weight = values["2.weight"]
    outputs, features = linear_input(lambda: function(values, x), weight)
    assert features is not None
    torch.testing.assert_close(ggn_linear(features, likelihood.fisher(outputs), bias=bias), hessian)


def test_linear_input_gives_the_features() -> None:
    net = mlp()
    values, x = parameters(net), torch.randn(4, 3)
    outputs, features = linear_input(lambda: call(net, values, x), values["2.weight"])
    assert features is not None
    torch.testing.assert_close(features, net[:2](x))
    torch.testing.assert_close(outputs, net(x))


class UsedTwice(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(3, 3), how

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.weight
        if self.how == "again":
            x = self.layer(x)
        elif self.how == "transposed":
            x = x @ weight.T
        elif self.how == "in a list":
            x = x @ torch.cat([weight, weight])[:3]
        outputs = self.layer(x)
        return outputs.exp() if self.how == "not last" else outputs


@pytest.mark.parametrize("how", ["again", "transposed", "in a list", "not last"])
def test_linear_input_refuses_weights_that_do_more(how: str) -> None:
    net = UsedTwice(how)
    values, x = parameters(net), torch.randn(4, 3)
    outputs, features = linear_input(lambda: call(net, values, x), values["layer.weight"])
    assert features is None
    torch.testing.assert_close(outputs, net(x))


def test_linear_input_refuses_sequences() -> None:
    net = nn.Linear(3, 2)
    values = parameters(net)
    _, features = linear_input(lambda: call(net, values, torch.randn(4, 5, 3)), values["weight"])
    assert features is None
