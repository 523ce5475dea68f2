"""Per-example Jacobians of every kind of network, against the dense oracle."""

from importlib import import_module

import oracle
import pytest
import torch
from conftest import Untouched
from nets import BATCH, NETS, TwoInputs, mlp
from torch import Tensor, nn

from bayesnn.curvature import jacobian
from bayesnn.curvature.jacobian import jacobian_chunks
from bayesnn.functional import batch_size, call, parameters

JACOBIAN = import_module("bayesnn.curvature.jacobian")  # the function has the module's name


every_net = pytest.mark.parametrize("kind", NETS)


def moved(net: nn.Module) -> dict[str, Tensor]:
    """Other values than the network's own, for every parameter."""
    return {name: value + 0.1 * torch.randn_like(value) for name, value in parameters(net).items()}


@every_net
@pytest.mark.parametrize("gradients", [True, False])
def test_jacobian_equals_the_dense_one(kind: str, gradients: bool, untouched: Untouched) -> None:
    net, x = NETS[kind]()
    values = moved(net)
    function = lambda v, x: call(net, v, x)  # noqa: E731
    expected = oracle.jacobian(function, values, x)
    with untouched(net), torch.set_grad_enabled(gradients):
        outputs, J = jacobian(function, values, x)
    torch.testing.assert_close(J, expected)
    torch.testing.assert_close(outputs, call(net, values, x))
    assert J.shape == (BATCH, 2, sum(value.numel() for value in values.values()))


def test_jacobian_columns_follow_the_values_order() -> None:
    net = mlp()
    function = lambda v, x: call(net, v, x)  # noqa: E731
    values, x = parameters(net), torch.randn(2, 3)
    backward = dict(reversed(values.items()))
    _, J = jacobian(function, values, x)
    _, reverse = jacobian(function, backward, x)
    blocks = J.split([value.numel() for value in values.values()], dim=2)
    torch.testing.assert_close(reverse, torch.cat(blocks[::-1], dim=2))


@pytest.mark.parametrize("kind", ["mlp", "lstm"])  # the vectorised way and the loop
def test_values_without_effect_have_zero_columns(kind: str) -> None:
    net, x = NETS[kind]()
    net.register_parameter("unused", nn.Parameter(torch.ones(3)))
    function = lambda v, x: call(net, v, x)  # noqa: E731
    _, J = jacobian(function, parameters(net), x)
    unused = list(parameters(net)).index("unused")
    sizes = [value.numel() for value in parameters(net).values()]
    assert (J.split(sizes, dim=2)[unused] == 0).all()
    _, alone = jacobian(function, {"unused": torch.ones(3)}, x)
    assert alone.shape == (BATCH, 2, 3)
    assert (alone == 0).all()


def test_several_output_axes_become_one() -> None:
    net = nn.Conv2d(1, 2, 3)
    x = torch.randn(4, 1, 4, 4)
    outputs, J = jacobian(lambda v, x: call(net, v, x), parameters(net), x)
    assert outputs.shape == (4, 8)
    assert J.shape == (4, 8, 20)


def test_an_error_of_the_network_is_the_one_that_is_raised() -> None:
    net = mlp()
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        jacobian(lambda v, x: call(net, v, x), parameters(net), torch.randn(2, 5))


@pytest.mark.parametrize("kind", ["mlp", "tuple", "dict"])
def test_chunks_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = NETS[kind]()
    function = lambda v, x: call(net, v, x)  # noqa: E731
    _, whole = jacobian(function, parameters(net), x)
    monkeypatch.setattr(JACOBIAN, "MEMORY", 1)  # one example a chunk
    parts = list(jacobian_chunks(function, parameters(net), x))
    assert [batch_size(part) for part, _, _ in parts] == [1] * BATCH
    torch.testing.assert_close(torch.cat([J for _, _, J in parts]), whole)


def test_keywords_that_are_no_tensors_reach_the_network() -> None:
    net = TwoInputs().eval()
    a, b = torch.randn(2, 3), torch.randn(2, 1)
    torch.testing.assert_close(call(net, {}, {"a": a, "b": b, "scale": 3.0}), 3 * call(net, {}, (a, b)))
    _, J = jacobian(lambda v, x: call(net, v, x), parameters(net), {"a": a, "b": b, "scale": 3.0})
    _, K = jacobian(lambda v, x: call(net, v, x), parameters(net), (a, b))
    torch.testing.assert_close(J, 3 * K)
