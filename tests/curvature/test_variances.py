"""Variances of linearised outputs by layers, against the dense Jacobian."""

from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from nets import NETS
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bayesnn.curvature import JacobianRows, linearised_variance
from bayesnn.functional import call


def mixed() -> tuple[Any, Tensor]:
    """Convolutions with one, few and many positions for two outputs, one of
    them in groups, and a normalisation.
    """
    net = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3, groups=2, stride=2), nn.Tanh(), nn.Conv2d(4, 3, 2), nn.Tanh()),
        *(nn.Conv2d(3, 3, 2, stride=2), nn.Flatten(), nn.Linear(3, 2)),
    )
    return net.eval(), torch.randn(4, 2, 8, 8)


def several() -> tuple[Any, Tensor]:
    """Outputs of two axes."""
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), torch.randn(5, 3)


CASES: dict[str, Callable[[], tuple[Any, Any]]] = {**NETS, "mixed": mixed, "several": several}


@pytest.mark.parametrize("name", CASES)
def test_they_are_those_of_the_dense_jacobian(name: str) -> None:
    net, x = CASES[name]()
    net = net.double()
    x = pytree.tree_map_only(Tensor, lambda part: part.double() if part.is_floating_point() else part, x)
    values = {key: value.detach() for key, value in net.named_parameters()}
    S = {key: torch.rand_like(value) * (torch.rand_like(value) < 0.8) for key, value in values.items()}
    found = linearised_variance(JacobianRows(net, values, dict.fromkeys(values)), x, S)
    J = oracle.jacobian(lambda held, inputs: call(net, held, inputs), values, x)
    torch.testing.assert_close(found, J.square() @ oracle.flat(S), rtol=1e-9, atol=1e-12)


def test_both_ways_are_taken() -> None:
    """One network, once with more outputs than positions and once with fewer."""
    body = nn.Sequential(nn.Conv1d(1, 3, 2), nn.Tanh(), nn.Flatten()).double()
    for outputs in (1, 6):
        net, x = nn.Sequential(*body, nn.Linear(12, outputs)).double(), torch.randn(3, 1, 5, dtype=torch.double)
        values = {key: value.detach() for key, value in net.named_parameters()}
        S = {key: torch.rand_like(value) for key, value in values.items()}
        J = oracle.jacobian(lambda held, inputs, net=net: call(net, held, inputs), values, x)
        found = linearised_variance(JacobianRows(net, values, dict.fromkeys(values)), x, S)
        torch.testing.assert_close(found, J.square() @ oracle.flat(S))


def test_chosen_entries_are_refused() -> None:
    net = nn.Linear(2, 1)
    rows = JacobianRows(net, {"weight": net.weight}, {"weight": torch.tensor([0])})
    with pytest.raises(ValueError, match="rows of whole parameters are needed"):
        linearised_variance(rows, torch.ones(1, 2), {"weight": torch.ones(1, 2)})
