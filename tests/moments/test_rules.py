"""Every rule's means and variances beside draws: independent normal inputs
through the function itself.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from statistical import assert_mean
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn.moments import Moments, Multiplicative, pairwise_max_pool, using_moment_rules

DRAWS = 200_000


def given(*shape: int) -> tuple[Tensor, Tensor]:
    """Means and variances of the size of a network's activations, one of them nearly certain."""
    loc, variance = torch.randn(shape), torch.rand(shape) + 0.1
    variance.view(-1)[0] = 1e-6
    return loc, variance


def check(function: Callable[[Any], Any], loc: Tensor, variance: Tensor) -> None:
    """The function of `Moments` beside that of draws; both put the batch first."""
    found = function(Moments(loc.unsqueeze(0), variance.unsqueeze(0)))
    draws = function(loc + variance.sqrt() * torch.randn(DRAWS, *loc.shape)).double()
    assert found.loc.shape == found.variance.shape == draws[:1].shape
    assert_mean(draws, found.loc[0].double())
    assert_mean((draws - found.loc.double()).square(), found.variance[0].double())


def affine_norm() -> nn.Module:
    norm = nn.BatchNorm1d(4)
    norm(2 * torch.randn(50, 4) + 1)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.eval()


ELEMENTWISE: dict[str, Callable[[Any], Any]] = {
    "relu": F.relu,
    "leaky relu": lambda x: F.leaky_relu(x, 0.3),
    "leaky relu, negative slope": lambda x: F.leaky_relu(x, -1.0),
    "relu6": lambda x: F.relu6(4 * x + 3),
    "hardtanh": lambda x: F.hardtanh(2 * x),
    "clamp from below": lambda x: x.clamp(min=0.5),
    "clamp from above": lambda x: torch.clamp(x, max=0.5),
    "tanh": torch.tanh,
    "sigmoid": lambda x: torch.sigmoid(3 * x),
    "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": F.softplus,
    "softplus, beta": lambda x: F.softplus(x, beta=2.0),
    "silu": F.silu,
    "mish": F.mish,
    "elu": F.elu,
    "erf": torch.erf,
    "abs": abs,
    "hard sigmoid": lambda x: F.hardsigmoid(3 * x),
    "selu": F.selu,
    "hard swish": F.hardswish,
    "square": lambda x: x**2,
    "exp": lambda x: (x / 2).exp(),
    "reshaping by another's shape": lambda x: x.view_as(torch.zeros_like(x)).to(x.dtype) + x.new_ones(x.size(1)),
    "multiple": lambda x: 1 - 2 * x / 3,
    "sum with itself": lambda x: x + x,
    "residual": lambda x: F.relu(x[..., :2]) + x[..., 2:],
    "with a tensor": lambda x: torch.arange(4.0) - x * torch.tensor([1.0, -2.0, 3.0, 0.5]),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "sum": lambda x: x.sum(1),
    "concatenation": lambda x: torch.cat([x, F.relu(x[:, :2]), torch.ones(len(x), 1)], 1),
    "views": lambda x: x.view(-1, 2, 2).transpose(1, 2).flatten(1).chunk(2, 1)[1],
    "matmul": lambda x: x @ torch.arange(8.0).reshape(4, 2),
    "linear": lambda x: F.linear(x, torch.arange(8.0).reshape(2, 4), torch.ones(2)),
    "dropout in evaluation": lambda x: F.dropout(x, 0.5, training=False),
    "dropout in training": lambda x: F.dropout(x, 0.3, training=True),
    "batch norm": affine_norm(),
}


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_of_vectors(kind: str) -> None:
    check(ELEMENTWISE[kind], *given(4))


SPATIAL: dict[str, Callable[[Any], Any]] = {
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "average pool, padding": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average pool, padding not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average pool, last windows cut": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average pool, divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "average pool of sequences": lambda x: F.avg_pool1d(x.flatten(2), 5, 2, 2, count_include_pad=False),
    "adaptive average pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive average pool, uneven": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive average pool, larger": lambda x: F.adaptive_avg_pool2d(x, 7),
    "padding": lambda x: F.pad(x, (1, 0, 0, 2), value=3.0),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "convolution": lambda x: F.conv2d(x, torch.ones(2, 4, 2, 2), None, 2, 1),
}


@pytest.mark.parametrize("kind", SPATIAL)
def test_of_maps(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "DRAWS", 20_000)
    check(SPATIAL[kind], *given(4, 4, 4))


def test_max_pool_takes_the_largest_mean() -> None:
    loc, variance = given(2, 4, 4)
    loc[:, ::2, ::2] += 50  # far ahead: the rule is exact
    check(lambda x: F.max_pool2d(x, 2), loc, variance)
    check(lambda x: F.adaptive_max_pool2d(x, 2), loc, variance)
    check(lambda x: F.max_pool1d(x.flatten(2), 2)[..., ::4], loc, variance)


def test_pairwise_max_pool_is_exact_for_two() -> None:
    with using_moment_rules({F.max_pool1d: pairwise_max_pool, F.max_pool2d: pairwise_max_pool}):
        check(lambda x: F.max_pool1d(x, 2), *given(2, 6))
        check(lambda x: F.max_pool1d(x, 2, 1, 1), *given(1, 4))
        check(lambda x: F.max_pool2d(x, (2, 1), dilation=(2, 1)), *given(1, 4, 3))
        check(lambda x: torch.maximum(x[:, :2], x[:, 2:]), *given(4))
        far = Moments(30 * torch.randn(1, 2, 9, 9), torch.full((1, 2, 9, 9), 1e-6))
        torch.testing.assert_close(F.max_pool2d(far, 3, 2, 1).loc, F.max_pool2d(far.loc, 3, 2, 1))


@pytest.mark.parametrize("norm", [nn.LayerNorm(500), nn.GroupNorm(2, 500)], ids=["layer norm", "group norm"])
def test_normalisation_over_many_features(norm: nn.Module) -> None:
    nn.init.normal_(norm.weight)
    loc, variance = given(500)
    with torch.no_grad():
        found = norm(Moments(loc.unsqueeze(0), variance.unsqueeze(0)))
        draws = norm(loc + variance.sqrt() * torch.randn(4000, 500))
    # An approximation of order 1 / features, and 4,000 draws: two percent of the spread each.
    assert (draws.mean(0) - found.loc[0]).abs().mean() < 0.02 * draws.std(0).mean()
    assert (draws.var(0) / found.variance[0]).nanmedian().sub(1).abs() < 0.02


def noisy(axis: int, groups: int, *shape: int) -> Multiplicative:
    weight = torch.randn(shape)
    inputs = shape[axis] * (groups if axis else 1)
    return Multiplicative(weight, torch.rand(inputs), weight.square() + 1e-10, axis=axis, groups=groups)


WEIGHTS: dict[str, tuple[tuple[int, ...], Callable[[], Multiplicative], Callable[[Any, Any], Any]]] = {
    "linear": ((4,), lambda: noisy(1, 1, 3, 4), F.linear),
    "linear over positions": ((2, 4), lambda: noisy(1, 1, 3, 4), F.linear),
    "conv1d, groups": ((4, 5), lambda: noisy(1, 2, 6, 2, 3), lambda x, w: F.conv1d(x, w, padding=1, groups=2)),
    "conv2d, stride": ((2, 5, 5), lambda: noisy(1, 1, 3, 2, 3, 3), lambda x, w: F.conv2d(x, w, stride=2)),
    "conv2d, dilation": ((2, 5, 5), lambda: noisy(1, 1, 3, 2, 2, 2), lambda x, w: F.conv2d(x, w, dilation=3)),
    "conv2d, depthwise": ((3, 4, 4), lambda: noisy(1, 3, 3, 1, 3, 3), lambda x, w: F.conv2d(x, w, groups=3)),
    "conv3d": ((1, 3, 3, 3), lambda: noisy(1, 1, 2, 1, 2, 2, 2), lambda x, w: F.conv3d(x, w)),
    "transposed": ((2, 3, 3), lambda: noisy(0, 1, 2, 3, 2, 2), lambda x, w: F.conv_transpose2d(x, w, stride=2)),
    "transposed, groups": (
        (4, 3),
        lambda: noisy(0, 2, 4, 2, 2),
        lambda x, w: F.conv_transpose1d(x, w, stride=2, groups=2),
    ),
    "matmul": ((2, 4), lambda: noisy(0, 1, 4, 3), lambda x, w: x @ w),
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("certain", [True, False], ids=["first layer", "inner layer"])
def test_of_random_weights(kind: str, certain: bool) -> None:
    shape, make, product = WEIGHTS[kind]
    loc, variance = given(*shape)
    variance = torch.zeros_like(variance) if certain else variance
    weight, batch, draws = make(), 500, 30_000
    general = Moments(weight.loc, weight.variance)
    weight.is_weight = general.is_weight = True  # as of a parameter of a network
    found = product(loc.unsqueeze(0) if certain else Moments(loc[None], variance[None]), weight)
    same = product(Moments(loc[None], variance[None]), general)
    torch.testing.assert_close(found.loc, same.loc)
    torch.testing.assert_close(found.variance, same.variance)
    x = loc + variance.sqrt() * torch.randn(draws, *shape)
    w = weight.loc + weight.variance.sqrt() * torch.randn(draws, *weight.loc.shape)
    outputs = torch.func.vmap(lambda a, b: product(a.unsqueeze(0), b), chunk_size=batch)(x, w).squeeze(1).double()
    assert_mean(outputs, found.loc[0].double())
    assert_mean((outputs - found.loc.double()).square(), found.variance[0].double())


@pytest.mark.parametrize("kind", WEIGHTS)
def test_of_random_weights_by_second_moments(kind: str) -> None:
    """Every entry sum_ab T_ab w_a x_b: E of its square is sum T_ab T_cd
    E[w_a w_c] E[x_b x_d], all products kept.
    """
    shape, make, product = WEIGHTS[kind]
    weight, (m, v) = make(), (value.double() for value in given(*shape))
    w, s = weight.loc.double(), weight.variance.double()
    random = Moments(w, s)
    random.is_weight = True
    found = product(Moments(m[None], v[None]), random)
    units = torch.eye(w.numel(), dtype=torch.double).reshape(-1, *w.shape)
    inputs = torch.eye(m.numel(), dtype=torch.double).reshape(-1, *m.shape)
    # [weight, out, input]
    form = torch.stack([product(inputs, unit).flatten(1).T for unit in units])
    second_w = torch.outer(w.flatten(), w.flatten()) + s.flatten().diag()
    second_x = torch.outer(m.flatten(), m.flatten()) + v.flatten().diag()
    square = torch.einsum("aob,bd,ac,cod->o", form, second_x, second_w, form)
    mean = torch.einsum("aob,a,b->o", form, w.flatten(), m.flatten())
    torch.testing.assert_close(found.loc.flatten(), mean)
    torch.testing.assert_close(found.variance.flatten(), square - mean.square())
