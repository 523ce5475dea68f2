"""Rules of linear maps beside the map's own Jacobian: means A m, variances (A o A) v, exact."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn.moments import Moments, propagate_moments


def given(*shape: int, dtype: torch.dtype = torch.double) -> Moments:
    generator = torch.Generator().manual_seed(0)
    loc, variance = (torch.rand(shape, generator=generator, dtype=dtype) for _ in range(2))
    return Moments(loc - 0.5, variance + 0.1)


def weights(*shape: int) -> Tensor:
    return torch.sin(torch.arange(float(torch.Size(shape).numel()))).reshape(shape)


def kernel(*shape: int) -> Any:
    """Of the type of the input."""
    return lambda x: weights(*shape).to(x.dtype)


K2, K3, V = kernel(3, 4), kernel(2, 4, 5), kernel(4)
LINEAR: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda x: F.interpolate(x, scale_factor=2, mode="linear"), (2, 1, 3)),
    "linear, smaller": (lambda x: F.interpolate(x, size=2, mode="linear"), (1, 2, 5)),
    "linear, corners": (lambda x: F.interpolate(x, size=7, mode="linear", align_corners=True), (1, 2, 3)),
    "linear, recomputed": (
        lambda x: F.interpolate(x, scale_factor=1.7, mode="linear", recompute_scale_factor=True),
        (1, 1, 5),
    ),
    "linear, a broken factor": (lambda x: F.interpolate(x, scale_factor=1.7, mode="linear"), (1, 1, 5)),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=(2, 1.5), mode="bilinear"), (2, 1, 3, 4)),
    "bilinear, corners": (
        lambda x: F.interpolate(x, size=(4, 3), mode="bilinear", align_corners=True),
        (1, 2, 2, 5),
    ),
    "bilinear, smoothed": (lambda x: F.interpolate(x, size=(2, 3), mode="bilinear", antialias=True), (1, 1, 5, 6)),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), (1, 1, 3, 4)),
    "trilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), (1, 1, 2, 3, 2)),
    "area": (lambda x: F.interpolate(x, size=(2, 3), mode="area"), (1, 2, 5, 4)),
    "upsampling": (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 1, 2, 3)),
    "einsum": (lambda x: torch.einsum("bi,oi->bo", x, K2(x)), (2, 4)),
    "einsum, no arrow": (lambda x: torch.einsum("oi, bi", K2(x), x), (2, 4)),
    "einsum, a sum of its own": (lambda x: torch.einsum("bi,oi->o", x, K2(x)), (2, 4)),
    "einsum, one more sum": (lambda x: torch.einsum("bi,oj->bo", x, K2(x)), (2, 4)),
    "einsum, leading axes": (lambda x: torch.einsum("...i,oi->...o", x, K2(x)), (2, 3, 4)),
    "einsum, diagonal": (lambda x: torch.einsum("ii,ij->ij", x, weights(3, 4).to(x.dtype)), (3, 3)),
    "einsum, alone": (lambda x: torch.einsum("bij->jb", x), (2, 3, 4)),
    "bmm": (lambda x: torch.bmm(x, K3(x)), (2, 3, 4)),
    "bmm, on the right": (lambda x: torch.bmm(K3(x).mT, x), (2, 4, 3)),
    "mv": (lambda x: torch.mv(x, V(x)), (3, 4)),
    "tensordot": (lambda x: torch.tensordot(x, K2(x), dims=([2], [1])), (2, 3, 4)),
    "where": (lambda x: torch.where(torch.eye(3, dtype=torch.bool), 2 * x, weights(3).to(x.dtype)), (3, 3)),
    "where, a number": (lambda x: torch.where(torch.eye(3, dtype=torch.bool), 1.0, x), (3, 3)),
    "masked_fill_": (lambda x: (2 * x).masked_fill_(torch.eye(3, dtype=torch.bool), -1.0), (3, 3)),
    "gather": (lambda x: x.gather(1, torch.tensor([[0, 2], [1, 1]])), (2, 3)),
    "flatten(input=)": (lambda x: torch.flatten(input=x, start_dim=1), (2, 3, 4)),
    "sum(input=)": (lambda x: torch.sum(input=x, dim=1), (2, 3)),
    "mean(input=)": (lambda x: torch.mean(input=x, dim=(0, 2)), (2, 3, 4)),
    "cat(tensors=)": (lambda x: torch.cat(tensors=[x, weights(2, 1).to(x.dtype)], dim=1), (2, 3)),
    "matmul(other=)": (lambda x: torch.matmul(input=x, other=K2(x).T), (2, 4)),
    "mm(mat2=)": (lambda x: torch.mm(x, mat2=K2(x).T), (2, 4)),
    "mv(vec=)": (lambda x: torch.mv(input=x, vec=V(x)), (3, 4)),
    "mul(other=)": (lambda x: torch.mul(input=x, other=V(x)), (3, 4)),
    "addmm(beta=)": (lambda x: torch.addmm(V(x)[:3], mat1=x, mat2=K2(x).T, beta=0.5, alpha=-2.0), (2, 4)),
    "addmm, its input": (lambda x: torch.addmm(x, K2(x), weights(4, 2).to(x.dtype), beta=0.5), (3, 2)),
    "addmm(beta=0)": (lambda x: torch.addmm(V(x)[:3], x, K2(x).T, beta=0), (2, 4)),
    "linear(input=)": (lambda x: F.linear(input=x, weight=K2(x), bias=V(x)[:3]), (1, 4)),
    "pad(input=)": (lambda x: F.pad(input=x, pad=(1, 0)), (2, 3)),
    "conv1d(input=)": (lambda x: F.conv1d(input=x, weight=weights(3, 2, 2).to(x.dtype), padding=1), (1, 2, 4)),
    "instance norm, running": (
        lambda x: F.instance_norm(x, V(x)[:2], V(x)[1:3] + 2, V(x)[2:], V(x)[:2], use_input_stats=False),
        (1, 2, 3),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", LINEAR)
def test_beside_the_jacobian(kind: str, dtype: torch.dtype) -> None:
    function, shape = LINEAR[kind]
    x = given(*shape, dtype=dtype)
    found = function(x)
    rows = torch.autograd.functional.jacobian(lambda m: function(m.clone()), x.loc)
    variance = (rows.square() * x.variance).flatten(found.loc.dim()).sum(-1)
    assert found.loc.dtype == found.variance.dtype == dtype
    torch.testing.assert_close(found.loc, function(x.loc.clone()))
    torch.testing.assert_close(found.variance, variance)


@pytest.mark.parametrize("equation", ["bi,oi->bo", "oi,bi->bo", "bti,oi->bto", "bti,oi->tbo"])
def test_einsum_of_an_input_and_a_weight_is_a_linear_layer(equation: str) -> None:
    """Random both; batch first and sequence first, of one example too."""
    x = given(*((1, 4) if "t" not in equation else (1, 3, 4)))
    weight = given(3, 4)
    weight.is_weight = True
    expected = F.linear(x, weight)
    operands = (weight, x) if equation.startswith("oi") else (x, weight)
    found = torch.einsum(equation, *operands)
    if equation.endswith("tbo"):
        found = found.transpose(0, 1)
    torch.testing.assert_close(found.loc, expected.loc)
    torch.testing.assert_close(found.variance, expected.variance)
    weight.is_weight = False
    with pytest.raises(NotImplementedError, match=r"matmul .* depend on their correlation"):
        torch.einsum(equation, *operands)


REFUSED: dict[str, tuple[Any, str]] = {
    "einsum": (lambda x: torch.einsum("ab,bc,cd->ad", x, x.loc, x.loc), "write longer products as several"),
    "bag": (lambda x: F.embedding_bag(torch.zeros(1, 2).long(), x, mode="max"), "mode='sum' and 'mean'"),
    "max norm": (lambda x: F.embedding(torch.zeros(1).long(), x, max_norm=1.0), "max_norm=None"),
    "weight norm": (lambda x: torch._weight_norm(x, x.loc, 0), "leave these parameters out of the subset"),
    "comparison": (lambda x: x > 0, "gt .* no tensor of means and variances"),
    "arguments": (lambda x: torch.matmul(x, x.loc, out=x.loc), "rule of matmul .* does not know .*'out'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_a_remedy(kind: str) -> None:
    function, message = REFUSED[kind]
    with pytest.raises(NotImplementedError, match=f"moments: .*{message}"):
        function(given(3, 3))


def test_weight_normalisation_names_its_place() -> None:
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    name = "0.parametrizations.weight.original1"
    value = net.get_parameter(name).detach()
    with pytest.raises(NotImplementedError, match=r"weight_norm\w* at .*leave these parameters out of the subset"):
        propagate_moments(net, {name: Moments(value, value.square())}, torch.ones(1, 3))


def test_prelu_with_a_random_slope() -> None:
    """Beside quadrature over x and the two moments of a: f = a x below 0, x above."""
    x = given(2, 3, 5)
    slope = given(3)
    found = F.prelu(x, slope)
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.double)
    density = torch.exp(-0.5 * grid.square()) / (2 * torch.pi) ** 0.5 * (grid[1] - grid[0])
    drawn = x.loc.unsqueeze(-1) + x.variance.sqrt().unsqueeze(-1) * grid
    mean, spread = (value.reshape(3, 1, 1) for value in (slope.loc, slope.variance))
    first = (torch.where(drawn > 0, drawn, mean * drawn) * density).sum(-1)
    square = torch.where(drawn > 0, drawn.square(), (mean.square() + spread) * drawn.square())
    torch.testing.assert_close(found.loc, first, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.variance, (square * density).sum(-1) - first.square(), rtol=1e-6, atol=1e-7)
    certain = F.prelu(x.loc, slope)
    torch.testing.assert_close(certain.loc, F.prelu(x.loc, slope.loc))
    torch.testing.assert_close(certain.variance, spread.reshape(3, 1) * x.loc.clamp(max=0).square())


def test_instance_norm_of_its_own_statistics_is_a_group_norm_of_single_channels() -> None:
    x, weight, bias = given(2, 3, 5), weights(3).double(), weights(3).double()
    found, expected = F.instance_norm(x, weight=weight, bias=bias), F.group_norm(x, 3, weight, bias)
    assert torch.equal(found.loc, expected.loc)
    assert torch.equal(found.variance, expected.variance)
