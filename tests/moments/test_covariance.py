"""Covariances between units: exact ones of linear networks, limits, what moves
and what is refused.
"""

import itertools
from typing import Any

import pytest
import torch
from covariance_problems import DRAWS, double, draws_of, given
from statistical import assert_mean
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn.functional import parameters
from bayesnn.moments import (
    COVARIANCE_RULES,
    MOMENT_RULES,
    JointMoments,
    Moments,
    Multiplicative,
    covariance_rule,
    elementwise_moments,
    first_order,
    propagate_moments,
)
from bayesnn.moments.joint_products import dense_moments


@pytest.mark.parametrize("kind", ["independent", "joint"])
def test_derivatives_of_linear_layers(kind: str) -> None:
    def function(m: Tensor, root: Tensor, w: Tensor, s: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        covariance = root @ root.mT
        x = JointMoments(m, covariance) if kind == "joint" else Moments(m, covariance.diagonal(dim1=-2, dim2=-1))
        found: Any = dense_moments(x, Moments(w, s), Moments(b, b.exp()))
        return found.loc, found.covariance, found.variance

    shapes = ((2, 3), (2, 3, 3), (4, 3), (4, 3), (4,))
    inputs = [torch.randn(shape).double().requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(function, inputs)


LINEAR: dict[str, Any] = {
    "multiple": lambda x: 1 - 2 * x / 3,
    "each its own": lambda x: (x - double(1, 2, 3, 4)) * double(1, -2, 0.5, 3) + 2,
    "with itself": lambda x: x + x,
    "matmul": lambda x: x @ torch.arange(8.0).double().reshape(4, 2),
    "addmm": lambda x: torch.addmm(torch.ones(2).double(), x, torch.arange(8.0).double().reshape(4, 2)),
    "linear": lambda x: F.linear(x, torch.arange(8.0).double().reshape(2, 4), torch.ones(2).double()),
    "flip": lambda x: x.flip(1).contiguous(),
    "parts": lambda x: x[:, 1:],
    "one of the halves": lambda x: x.chunk(2, 1)[1],
    "chosen": lambda x: x[..., torch.tensor([2, 0])].float(),
    "reshaped": lambda x: x.unsqueeze(1).flatten(1).view(-1, 4).reshape(1, 3, 4).squeeze(0),
    "in its place": lambda x: x.mul(1).mul_(2).add_(1),
    "batch norm": lambda x: F.batch_norm(
        x, torch.ones(4).double(), torch.arange(1, 5).double(), torch.ones(4).double()
    ),
    "dropout in evaluation": lambda x: F.dropout(x, 0.5, training=False),
    "clamp with mass far above": lambda x: (x + 100).clamp(min=0),
    "leaky relu of slope 1": lambda x: F.leaky_relu(x, 1.0),
    "with a constant": lambda x: torch.cat([x, torch.ones(3, 1).double()], 1)[:, 1:],
}


@pytest.mark.parametrize("kind", LINEAR)
def test_of_linear_operations(kind: str) -> None:
    """Exact: the covariance is A C A^T with the operation's own Jacobian A."""
    x, function = given(), LINEAR[kind]
    found = function(x)
    assert isinstance(found, JointMoments)
    torch.testing.assert_close(found.loc, function(x.loc.clone()))
    (jacobian,) = [torch.autograd.functional.jacobian(lambda m: function(m.clone()), x.loc)]
    each = torch.stack([jacobian[i, :, i] for i in range(3)]).double()
    expected = each @ x.covariance @ each.mT
    torch.testing.assert_close(found.covariance.double(), expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(found.variance.double(), expected.diagonal(dim1=1, dim2=2), rtol=1e-6, atol=1e-12)


def test_of_one_unit_alone() -> None:
    x = given()
    one = x[:, 2]
    assert not isinstance(one, JointMoments)
    torch.testing.assert_close(one.variance, x.variance[:, 2])
    assert type(x[:, 2:3].squeeze(-1)) is Moments


def test_of_independent_terms() -> None:
    x, other, shared = given(), given(), given(1)
    torch.testing.assert_close((x + other).covariance, x.covariance + other.covariance)
    torch.testing.assert_close((x - other).covariance, x.covariance + other.covariance)
    single = Moments(other.loc, other.variance)
    for found in (x + single, single + x, single - x):
        torch.testing.assert_close(found.covariance, x.covariance + torch.diag_embed(single.variance))
    # moves all units together
    torch.testing.assert_close((x + shared).covariance, x.covariance + shared.covariance)
    both = torch.cat([x, single, torch.ones(3, 1).double()], -1)
    assert both.covariance.shape == (3, 9, 9)
    torch.testing.assert_close(both.covariance[:, :4, :4], x.covariance)
    torch.testing.assert_close(both.covariance[:, 4:8, 4:8], torch.diag_embed(single.variance))
    assert (both.covariance[:, :4, 4:] == 0).all()
    torch.testing.assert_close(torch.cat([x, other]).covariance, torch.cat([x.covariance, other.covariance]))


def test_of_random_scales() -> None:
    x = given()
    scale = Moments(torch.randn(4).double(), torch.rand(4).double())
    scale.is_weight = True
    draws = draws_of(x) * (scale.loc + scale.variance.sqrt() * torch.randn(DRAWS, 1, 4).double())
    for found in (x * scale, scale * x):
        centred = draws - found.loc
        assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), found.covariance)


def test_of_dropout_in_training() -> None:
    x = given()
    found, draws = F.dropout(x, 0.3, training=True), F.dropout(draws_of(x), 0.3)
    centred = draws - found.loc
    assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), found.covariance)


def random_weights(net: nn.Module) -> dict[str, Any]:
    """Of every parameter another kind: multiplicative matrices, a certain one, vectors."""
    values: dict[str, Any] = {}
    for at, (name, value) in enumerate(parameters(net).items()):
        if value.dim() == 2 and at % 3:
            noise = torch.rand(value.shape[1]).double()
            values[name] = Multiplicative(value, noise, value.square())
        else:
            values[name] = Moments(value, torch.rand_like(value))
    return values


def test_deep_linear_networks_are_exact() -> None:
    """Every weight takes one of two values, m +- sd: all networks of that kind
    have the same moments.
    """
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), nn.Linear(2, 2)).double()
    for value in net.parameters():
        value.data *= 2
    values, x = random_weights(net), torch.randn(2, 2).double()
    found = propagate_moments(net, values, x, covariance=True)
    assert isinstance(found, JointMoments)
    flat = torch.cat([value.loc.flatten() for value in values.values()])
    sd = torch.cat([value.variance.sqrt().flatten() for value in values.values()])
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=len(flat))), dtype=torch.double)
    weights = (flat + signs * sd).split([value.numel() for value in values.values()], 1)
    shaped = [part.reshape(-1, *value.shape) for part, value in zip(weights, values.values(), strict=True)]
    outputs = x.expand(len(signs), 2, 2)
    w1, b1, w2, w3, b3 = shaped
    outputs = ((outputs @ w1.mT + b1.unsqueeze(1)) @ w2.mT) @ w3.mT + b3.unsqueeze(1)
    centred = outputs - outputs.mean(0)
    torch.testing.assert_close(found.loc, outputs.mean(0))
    torch.testing.assert_close(found.covariance, (centred.unsqueeze(-1) * centred.unsqueeze(-2)).mean(0))
    diagonal = propagate_moments(net, values, x)
    assert (diagonal.variance / found.variance - 1).abs().max() > 0.1  # the test can tell


class Residual(nn.Module):
    """Every kind of step of a dense network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second, self.head = (
            nn.Linear(3, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 2),
        )
        self.norm, self.drop = nn.LayerNorm(6), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        x = x + F.relu(self.first(self.norm(x)), inplace=True)
        x += self.drop(F.gelu(self.second(x)))
        return self.head(x)


def test_without_variance_it_is_the_network() -> None:
    net, x = Residual().double().eval(), torch.randn(5, 3).double()
    values = {name: Moments(value, torch.zeros_like(value)) for name, value in parameters(net).items()}
    found: Any = propagate_moments(net, values, x, covariance=True)
    torch.testing.assert_close(found.loc, net(x).detach())
    torch.testing.assert_close(found.covariance, torch.zeros(5, 2, 2).double(), rtol=0, atol=1e-20)


def test_without_covariances_it_is_the_diagonal_pass() -> None:
    """Layers that mix no units: diagonal matrices, of which the zeros are certain."""
    net = nn.Sequential(
        nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.LeakyReLU()
    ).double()
    values: dict[str, Any] = {}
    for name, value in parameters(net).items():
        mask = torch.eye(3).double() if value.dim() == 2 else 1.0
        values[name] = Moments(value * mask, torch.rand_like(value) * mask)
    x = torch.randn(4, 3).double()
    found: Any = propagate_moments(net, values, x, covariance=True)
    expected = propagate_moments(net, values, x)
    torch.testing.assert_close(found.loc, expected.loc)
    torch.testing.assert_close(found.covariance, torch.diag_embed(expected.variance))


def test_covariances_begin_behind_convolutions() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 5), nn.ReLU())
    values = random_weights(net.double())
    x = torch.randn(3, 1, 6, 6).double()
    head = propagate_moments(net[:4], {name: values[name] for name in ("0.weight", "0.bias")}, x)
    before = F.linear(JointMoments(head.loc, torch.diag_embed(head.variance)), values["4.weight"], values["4.bias"])
    found: Any = propagate_moments(net, values, x, covariance=True, chunk=2)
    torch.testing.assert_close(found.covariance, F.relu(before).covariance)
    one = propagate_moments(net[:4], {"0.weight": values["0.weight"]}, x, covariance=True)
    assert not isinstance(one, JointMoments)


def test_what_has_no_rule_is_refused_with_the_remedy() -> None:
    x = given()
    remedy = "has no rule for covariances between units.*covariance=False"
    for function in (
        lambda: F.avg_pool1d(x, 2),
        lambda: x.sum(1),
        lambda: x.mean(),
        lambda: x.T,
        lambda: x.reshape(6, 2),
    ):
        with pytest.raises(NotImplementedError, match=remedy):
            function()
    with pytest.raises(NotImplementedError, match="separates the units of an example"):
        x.repeat(2, 1)
    with pytest.raises(NotImplementedError, match="products of two random tensors"):
        x * torch.sigmoid(x)
    with pytest.raises(NotImplementedError, match="matmul"):
        Multiplicative(torch.ones(2, 3), torch.ones(3), torch.ones(2, 3)) @ x
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 1, 2)).double()
    with pytest.raises(NotImplementedError, match=r"conv1d at '3' \(Conv1d\) has no rule for covariances"):
        propagate_moments(net, random_weights(net), torch.ones(1, 4).double(), covariance=True)


def test_what_cannot_hold_covariances_is_refused_after_it_was_to() -> None:
    x, single = given(), Moments(torch.zeros(3, 4).double(), torch.ones(3, 4).double())
    alias = single
    single += x
    torch.testing.assert_close(single.covariance, x.covariance + torch.eye(4).double())
    with pytest.raises(NotImplementedError, match="changed in place"):
        alias + 1
    view = x.flatten(1)
    x.relu_()
    with pytest.raises(NotImplementedError, match="changed in place"):
        view + 1


def test_rules_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOMENT_RULES, torch.arctan, elementwise_moments(torch.arctan))
    x = given()
    found = torch.arctan(x)
    draws = torch.arctan(draws_of(x)) - found.loc
    assert_mean(draws.unsqueeze(-1) * draws.unsqueeze(-2), found.covariance)
    torch.testing.assert_close(found.variance, torch.arctan(Moments(x.loc, x.variance)).variance)

    slope = torch.rand(3, 4).double()
    own = first_order(x, Moments(x.loc, 9 * x.variance), slope)
    torch.testing.assert_close(own.covariance[:, 0, 1], slope[:, 0] * slope[:, 1] * x.covariance[:, 0, 1])
    torch.testing.assert_close(own.covariance.diagonal(dim1=1, dim2=2), 9 * x.variance)

    monkeypatch.setattr("bayesnn.moments.joint.COVARIANCE_RULES", dict(COVARIANCE_RULES))

    @covariance_rule(torch.cumsum)
    def cumulative_sum(x: Any, dim: int) -> Any:
        return x @ torch.ones(4, 4).double().triu()

    ones = torch.ones(4, 4).double().tril()
    torch.testing.assert_close(torch.cumsum(x, 1).covariance, ones @ x.covariance @ ones.mT)


def test_covariances_beyond_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesnn.functional.memory.available", lambda _: 2**28)
    x = Moments(torch.zeros(1000, 2), torch.ones(1000, 2))
    with pytest.raises(
        MemoryError, match=r"covariances of 1000 examples with 300 units needs 0.3 GiB.*smaller batches"
    ):
        dense_moments(x, torch.ones(300, 2))
