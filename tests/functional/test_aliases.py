"""Modules with two names: each place is swapped once, and the network is its
own again, after errors too.
"""

from typing import Any

import pytest
import torch
from conftest import Untouched
from nets import NETS, mlp
from snapshot import unchanged
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, predictive, priors, subset
from bayesnn.functional import call, parameters
from bayesnn.guides import Laplace, MeanField

ALIASED = ["two names", "two names, lstm", "tied words", "layer twice", "norm twice"]


@pytest.mark.parametrize("kind", ALIASED)
@pytest.mark.parametrize("what", ["outputs", "predictive", "Laplace"])
@pytest.mark.parametrize("choose", [subset.everything, subset.last_layer])
def test_the_network_is_its_own_again(kind: str, what: str, choose: Any, untouched: Untouched) -> None:
    net, x = NETS[kind]()
    model = BNN(net, choose(net), priors.normal(1.0), likelihoods.categorical, size=12)
    with untouched(net):
        if what == "outputs":
            model.outputs({site: value + 1 for site, value in model.values().items()}, x)
        elif what == "predictive":
            predictive(MeanField(model), x, 5, model=model)
        else:
            Laplace(model).fit([(x, torch.zeros(len(x), dtype=torch.long))])
    assert net(x).requires_grad


def test_both_uses_of_a_layer_take_the_value() -> None:
    net, x = NETS["layer twice"]()
    values = {name: value + 1 for name, value in parameters(net).items()}
    w, b = values["0.weight"], values["0.bias"]
    by_hand = ((x @ w.T + b).tanh() @ w.T + b) @ values["3.weight"].T + values["3.bias"]
    torch.testing.assert_close(call(net, values, x), by_hand)


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ArithmeticError("inside")


def test_an_error_inside_puts_everything_back(untouched: Untouched) -> None:
    layer = nn.Linear(3, 3)
    net = nn.Sequential(layer, layer, Raising())
    with untouched(net), pytest.raises(ArithmeticError, match="inside"):
        call(net, {"0.weight": torch.zeros(3, 3)}, torch.zeros(1, 3))


class Remembering(nn.Module):
    """Assigns in its forward pass, as layers with hooks and caches do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(2)), 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.last = x * self.weight
        return self.last


def test_what_a_forward_pass_assigns_is_put_back(untouched: Untouched) -> None:
    net = Remembering()
    with untouched(net):
        torch.vmap(lambda w: call(net, {"weight": w}, torch.ones(1, 2)))(torch.randn(3, 2))


def test_weights_of_a_parametrization_and_of_a_list(untouched: Untouched) -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    net = nn.Sequential(normed, nn.Tanh(), normed)
    values = {name: 2 * value for name, value in parameters(net).items()}
    with untouched(net):
        found = call(net, values, torch.ones(1, 2))
    w = 2 * normed.weight  # g doubled, v only turned into a direction
    b = 2 * normed.bias
    torch.testing.assert_close(found, (torch.ones(1, 2) @ w.T + b).tanh() @ w.T + b)


def test_scripted_modules_are_refused() -> None:
    with pytest.warns(Warning, match="torch.jit"):
        scripted = torch.jit.script(mlp())
    with pytest.raises(TypeError, match=r"use the nn\.Module that it was made from"):
        call(nn.Sequential(scripted), {}, torch.zeros(1, 3))


def test_the_snapshot_sees_a_plain_tensor_in_the_place_of_a_parameter() -> None:
    net = mlp()
    with pytest.raises(AssertionError, match="the network was changed"), unchanged(net):
        net[0]._parameters["weight"] = net[0].weight.detach()
