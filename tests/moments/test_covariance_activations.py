"""Covariances through activations: golden values, quadrature, limits, derivatives."""

import math
from typing import Any

import pytest
import torch
from covariance_problems import double, draws_of, given, pairs
from statistical import assert_mean
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments import JointMoments
from bayesnn.moments.activations import leaky_relu_moments
from bayesnn.moments.joint_activations import rectified


def test_golden_values_of_rectified_pairs() -> None:
    found = F.relu(pairs(double(0, 0), double(1, 1), double(0.5).squeeze())).covariance
    torch.testing.assert_close(found[0, 1].item(), 0.1453439474, rtol=0, atol=6e-11)
    found = F.relu(JointMoments(double(0.5, -0.3), double([1.0, 0.4], [0.4, 0.5]))).covariance
    torch.testing.assert_close(found[0, 1].item(), 0.1069332, rtol=0, atol=6e-8)
    assert abs(found[0, 1].item() - 0.1069528) < 2.1e-5  # by quadrature
    torch.testing.assert_close(found.diagonal()[0].item(), 0.5534407045, rtol=0, atol=6e-11)


def test_rectified_pairs_of_mean_zero_are_exact() -> None:
    r = double(-0.99999, -0.9, -0.3, -1e-3, -1e-9, 0, 1e-6, 0.02, 0.5, 0.99, 0.99999)
    found = rectified(pairs(torch.zeros(11, 2).double(), double(2, 3).expand(11, 2), r)).covariance[:, 0, 1]
    arc = (1 - r**2).sqrt() + r * (math.pi / 2 + r.asin())
    torch.testing.assert_close(found, 6 * (arc - 1) / (2 * math.pi), rtol=1e-7, atol=1e-15)


@pytest.mark.parametrize("slope", [0.0, 0.2, -1.0])
def test_rectified_pairs_beside_quadrature(slope: float) -> None:
    """E[f(x) E[f(y) | x]], whose inner mean is exact; the error is that of the approximation."""
    torch.manual_seed(0)
    m, sd, r = 1.5 * torch.randn(1000, 2).double(), 1.5 * torch.rand(1000, 2).double() + 0.1, torch.rand(1000).double()
    r = 1.998 * r - 0.999
    z = torch.linspace(-9, 9, 2001).double()
    weight = (-0.5 * z * z).exp()
    weight = weight / weight.sum()
    x = m[:, :1] + sd[:, :1] * z
    y, rest = m[:, 1:] + (r * sd[:, 1]).unsqueeze(1) * z, ((1 - r**2) * sd[:, 1] ** 2).unsqueeze(1).expand_as(x)
    first, second = torch.where(x > 0, x, slope * x), leaky_relu_moments(y, rest, slope)[0]
    expected = (first * second) @ weight - (first @ weight) * (second @ weight)
    error = (rectified(pairs(m, sd, r), slope).covariance[:, 0, 1] - expected).abs() / sd.prod(1) / (1 - slope) ** 2
    assert error.median() < 3e-6
    assert error[r.abs() < 0.5].max() < 1.2e-4
    assert error[r.abs() < 0.7].max() < 7e-4
    assert error.max() < 0.0125  # where |r| -> 1


def test_single_precision_has_its_digits() -> None:
    r = torch.tensor([0, 1e-8, 1e-5, 1e-3, 0.018, 0.019, 0.1, 0.5, 0.9, 0.9999])
    for m in ((0.5, -0.3), (-3.0, -3.0), (3.0, -3.0)):
        x = pairs(torch.tensor(m).expand(10, 2), torch.ones(10, 2), r)
        same = JointMoments(x.loc.double(), x.covariance.double())
        found, expected = rectified(x).covariance[:, 0, 1], rectified(same).covariance[:, 0, 1]
        torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=3e-8)


@pytest.mark.parametrize("slope", [0.0, 0.2, -1.0])
def test_derivatives_of_rectified_units(slope: float) -> None:
    def function(m: Tensor, root: Tensor) -> tuple[Tensor, ...]:
        found = rectified(JointMoments(m, root @ root.mT + 0.05 * torch.eye(3).double()), slope)
        return found.loc, found.covariance, found.variance

    m, root = torch.randn(2, 3).double(), torch.randn(2, 3, 3).double()
    assert torch.autograd.gradcheck(function, (m.requires_grad_(), root.requires_grad_()))
    # r = 0
    assert torch.autograd.gradcheck(function, (m, torch.zeros(2, 3, 3).double().requires_grad_()))


RULES: dict[str, Any] = {
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "exp": lambda x: (x / 2).exp(),
    "square": lambda x: x**2,
    "relu6": lambda x: F.relu6(4 * x),
    "hard sigmoid": F.hardsigmoid,
    "clamp from above": lambda x: x.clamp(max=0.5),
    "layer norm": lambda x: F.layer_norm(x, (3,)),
}


@pytest.mark.parametrize("activation", [F.relu, torch.tanh, F.relu6, torch.exp, lambda x: F.layer_norm(x, (4,))])
def test_it_does_not_depend_on_the_mode_of_gradients(activation: Any) -> None:
    x = given()
    known = JointMoments(x.loc.clone().requires_grad_(), x.covariance.clone().requires_grad_())
    with torch.no_grad():
        found, same = activation(x), activation(known)
    expected = activation(known)
    assert expected.covariance.requires_grad
    for each in (found, same):
        assert not each.covariance.requires_grad
        torch.testing.assert_close(each.covariance, expected.covariance)
        torch.testing.assert_close(each.loc, expected.loc)


@pytest.mark.parametrize("kind", RULES)
def test_derivatives_of_rules(kind: str) -> None:
    def function(m: Tensor, root: Tensor) -> tuple[Tensor, ...]:
        found = RULES[kind](JointMoments(m, root @ root.mT + 0.05 * torch.eye(3).double()))
        return found.loc, found.covariance

    inputs = torch.randn(2, 3).double().requires_grad_(), (torch.randn(2, 3, 3).double() / 2).requires_grad_()
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("activation", [F.relu, F.leaky_relu, abs, torch.tanh, F.relu6, torch.exp])
def test_derivatives_are_finite_in_the_limits(activation: Any) -> None:
    """Units that are certain, independent, or the same up to sign; one on the kink."""
    m = double(0, 0.5, -1, 0, 7).float().requires_grad_()
    direction = torch.tensor([[0.0, 1, -1, 0, 1e-8]])
    covariance = (direction.mT @ direction).requires_grad_()
    found = activation(JointMoments(m, covariance))
    assert found.covariance.isfinite().all()
    (found.loc.sum() + (found.covariance * torch.randn(5, 5)).sum()).backward()
    for value in (m, covariance):
        assert value.grad is not None
        assert value.grad.isfinite().all()
    assert (found.covariance[0].abs() <= 1e-30).all()


def test_rectified_matrices_are_nearly_semi_definite() -> None:
    """Not by construction: of 3 directions in 50 units, the smallest eigenvalue
    is -1e-3 of the largest.
    """
    for directions in (1, 3, 50):
        root = torch.randn(20, 50, directions).double()
        found = rectified(JointMoments(2 * torch.randn(20, 50).double(), root @ root.mT)).covariance
        torch.testing.assert_close(found, found.mT)
        values = torch.linalg.eigvalsh(found)
        assert (values[:, 0] >= -2e-3 * values[:, -1]).all()


def test_first_order_matrices_are_semi_definite() -> None:
    root = torch.randn(20, 30, 3).double()
    for function in (torch.tanh, F.gelu, F.hardtanh, torch.exp):
        values = torch.linalg.eigvalsh(function(JointMoments(torch.randn(20, 30).double(), root @ root.mT)).covariance)
        assert (values[:, 0] >= -1e-12 * values[:, -1]).all()


def test_smooth_functions_to_fourth_order() -> None:
    """Beside E[sin x sin y], whose expansion in r goes on; the fifth term is
    below r^5 times the variance.
    """
    m, r = torch.randn(50, 2).double(), 2 * torch.rand(50).double() - 1
    found = torch.sin(pairs(m, double(1.2, 0.7).expand(50, 2), r))
    c, total = 1.2 * 0.7 * r, 1.2**2 + 0.7**2
    apart, along = (c - total / 2).exp() * (m[:, 0] - m[:, 1]).cos(), (-c - total / 2).exp() * (m[:, 0] + m[:, 1]).cos()
    expected = (apart - along) / 2 - found.loc.prod(1)
    error = (found.covariance[:, 0, 1] - expected).abs()
    assert (error <= 0.1 * r.abs() ** 5 * found.variance.prod(1).sqrt() + 1e-7).all()
    assert error.max() > 1e-6  # the bound is one


@pytest.mark.parametrize("kind", ["exp", "square", "layer norm"])
def test_closed_forms_beside_draws(kind: str) -> None:
    x = given(4)
    if kind == "layer norm":  # a constant spread: the centring by itself, up to a factor
        found = F.layer_norm(x, (4,))
        centring = torch.eye(4).double() - 0.25
        expected = centring @ x.covariance @ centring
        torch.testing.assert_close(found.covariance / found.covariance[:, :1, :1], expected / expected[:, :1, :1])
        return
    found, draws = RULES[kind](x), RULES[kind](draws_of(x))
    assert_mean(draws, found.loc)
    centred = draws - found.loc
    assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), found.covariance)
