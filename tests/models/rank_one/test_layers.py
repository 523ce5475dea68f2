"""Layers with members equal their dense members: values, gradients, layout, counts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayesnn.models import batch_ensemble
from bayesnn.models.rank_one import MemberNorm, RankOne, by_member, near_one, random_signs, shared_batch, tile

M = 3
LAYERS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "linear": lambda: (nn.Linear(4, 6), torch.randn(2, 4)),
    "linear, sequence": lambda: (nn.Linear(4, 6, bias=False), torch.randn(2, 5, 4)),
    "conv1d": lambda: (nn.Conv1d(4, 6, 3, padding="same"), torch.randn(2, 4, 7)),
    "conv2d, stride": lambda: (nn.Conv2d(4, 6, 3, stride=2, padding=1), torch.randn(2, 4, 7, 6)),
    "conv2d, groups": lambda: (nn.Conv2d(4, 6, 3, groups=2, padding=1), torch.randn(2, 4, 5, 5)),
    "conv2d, depthwise": lambda: (nn.Conv2d(4, 8, 3, groups=4), torch.randn(2, 4, 5, 5)),
    "conv2d, dilation": lambda: (nn.Conv2d(4, 6, 3, dilation=2, bias=False), torch.randn(2, 4, 7, 7)),
    "conv2d, circular": lambda: (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), torch.randn(2, 4, 5, 5)),
    "conv3d": lambda: (nn.Conv3d(2, 3, 2), torch.randn(2, 2, 3, 3, 3)),
    "transposed 1d": lambda: (nn.ConvTranspose1d(4, 6, 3, stride=2), torch.randn(2, 4, 5)),
    "transposed 2d, groups": lambda: (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
        torch.randn(2, 4, 5, 4),
    ),
    "transposed 3d": lambda: (nn.ConvTranspose3d(2, 3, 2, bias=False), torch.randn(2, 2, 3, 3, 3)),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)
both_ways = pytest.mark.parametrize("large", [False, True], ids=["by rows", "by weights"])


def assert_close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def made(kind: str) -> tuple[nn.Module, Any, Tensor]:
    layer, x = LAYERS[kind]()
    layer, x = layer.double(), x.double()
    net = batch_ensemble(layer, M)
    converted: Any = net.net
    if converted.bias is not None:
        nn.init.normal_(converted.bias)
    return layer, net, x


@both_ways
@every_layer
def test_members_are_dense_layers_gradients_included(kind: str, large: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(RankOne, "large", lambda layer, rows: large)
    layer, net, x = made(kind)
    converted = net.net
    tiled: Any = tile(x, M).requires_grad_()  # type: ignore[union-attr]
    rows = net.rows(tiled)
    pull = torch.randn_like(rows)
    (rows * pull).sum().backward()
    total = torch.zeros_like(converted.layer.weight)
    for j in range(M):
        r, s = (vectors[j].detach().requires_grad_() for vectors in (converted.r, converted.s))
        plain: Any = net.member(j)
        inputs: Any = x.clone().requires_grad_()
        assert type(plain) is type(layer)
        outputs = plain(inputs)
        assert_close(outputs, by_member(rows, M)[j])
        (outputs * by_member(pull, M)[j]).sum().backward()
        weight = converted.dense(r, s)
        assert_close(by_member(tiled.grad, M)[j], inputs.grad)
        to_r, to_s = torch.autograd.grad(weight, (r, s), plain.weight.grad)
        assert_close(converted.r.grad[j], to_r)
        assert_close(converted.s.grad[j], to_s)
        total += plain.weight.grad * (weight / converted.layer.weight).detach()
        if converted.bias is not None:
            assert_close(converted.bias.grad[j], plain.bias.grad)
    assert_close(converted.layer.weight.grad, total)


@every_layer
def test_both_ways_have_the_same_derivatives_under_transforms(kind: str, monkeypatch: Any) -> None:
    _, net, x = made(kind)
    rows = tile(x, M)
    names = [name for name, _ in net.net.named_parameters()]
    draws = {name: torch.randn(2, *p.shape).double() for name, p in net.net.named_parameters()}
    tangents = [torch.randn_like(draws[name][0]) for name in names]

    every = tuple(range(len(names)))

    def loss(*values: Tensor) -> Tensor:
        return net.rows(rows, dict(zip(names, values, strict=True))).pow(3).sum()

    def slope(*values: Tensor) -> tuple[Tensor, Any]:
        grads = torch.func.grad(loss, every)(*values)
        return torch.stack([(grad * t).sum() for grad, t in zip(grads, tangents, strict=True)]).sum(), grads

    def curvature(*values: Tensor) -> Any:
        """The Hessian times the tangents, and the gradient."""
        return torch.func.grad(slope, every, has_aux=True)(*values)

    found = []
    for large in (False, True):
        monkeypatch.setattr(RankOne, "large", lambda layer, rows, large=large: large)
        mapped = torch.func.vmap(curvature)(*draws.values())
        alone = [curvature(*(draw[i] for draw in draws.values())) for i in range(2)]
        for i, one in enumerate(alone):
            for a, b in zip((*mapped[0], *mapped[1]), (*one[0], *one[1]), strict=True):
                assert_close(a[i], b)
        found.append((*mapped[0], *mapped[1]))
    for a, b in zip(*found, strict=True):
        assert_close(a, b)


def test_large_rows_meet_the_weight_of_every_member() -> None:
    layer = RankOne(nn.Conv2d(4, 8, 3), M, near_one())
    calls: list[Tensor] = []
    layer.layer.register_forward_hook(lambda module, args, output: calls.append(module.weight))
    entries = 4 * 8 * 4 * 9 + 100_000  # 4 of a weight, 100,000 of a call
    side = int((entries / 2 / 12) ** 0.5)  # two images a member, 4 + 8 channels
    for pixels, count in ((side, 1), (side + 1, M)):
        calls.clear()
        layer(torch.zeros(2 * M, 4, pixels, pixels))
        assert len(calls) == count
        assert (calls[0] is layer.layer.weight) == (count == 1)


def test_golden_values() -> None:
    net = batch_ensemble(nn.Linear(3, 2), 2)
    layer = net.layers[""]
    state = {
        "layer.weight": torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 3.0]]),
        "r": torch.tensor([[1.0, -1.0, 2.0], [0.5, 1.0, 1.0]]),
        "s": torch.tensor([[2.0, -1.0], [1.0, 0.5]]),
        "bias": torch.tensor([[0.1, 0.2], [0.0, -0.3]]),
    }
    layer.load_state_dict(state)
    outputs = net(torch.tensor([[1.0, 2.0, -1.0]]))
    torch.testing.assert_close(outputs, torch.tensor([[[-1.9, 3.7]], [[5.5, -2.675]]]))


@every_layer
def test_vectors_of_ones_change_nothing(kind: str) -> None:
    layer, x = LAYERS[kind]()
    rows = batch_ensemble(layer, M, initial=near_one(0.0)).rows(tile(x, M))
    for rows_of_member in by_member(rows, M):
        torch.testing.assert_close(rows_of_member, layer(x))


@every_layer
def test_random_signs_keep_the_size_of_every_weight(kind: str) -> None:
    layer, _ = LAYERS[kind]()
    net = batch_ensemble(layer, M, initial=random_signs())
    signs = set()
    for j in range(M):
        weight: Any = net.member(j).weight
        assert torch.equal(weight.abs(), layer.weight.abs())
        signs.add(tuple(weight.sign().flatten().tolist()))
    assert len(signs) == M


@every_layer
def test_a_layer_costs_its_vectors(kind: str) -> None:
    layer, _ = LAYERS[kind]()
    inputs, outputs = (getattr(layer, "in_features", 0), getattr(layer, "out_features", 0))
    if not inputs:
        inputs, outputs = layer.in_channels, layer.out_channels
    more = M * (inputs + outputs) + (0 if layer.bias is None else (M - 1) * outputs)
    count = sum(parameter.numel() for parameter in layer.parameters())
    assert sum(parameter.numel() for parameter in batch_ensemble(layer, M).parameters()) == count + more


def test_initialisation() -> None:
    r = near_one(0.5)(100, 400)
    assert abs(float(r.mean()) - 1) < 5 * 0.5 / 200  # false alarm 6e-7
    assert abs(float(r.std()) - 0.5) < 5 * 0.5 / 283
    assert random_signs(1.0)(2, 5).eq(1).all()
    share = float(random_signs(0.8)(100, 400).eq(1).float().mean())
    assert abs(share - 0.8) < 5 * (0.8 * 0.2 / 40_000) ** 0.5
    own = batch_ensemble(nn.Linear(3, 2), 2, initial=lambda members, width: torch.full((members, width), 7.0))
    assert own.layers[""].r.eq(7).all()
    with pytest.raises(ValueError, match=r"initial: \(2, 3\) -> \[member, width\] is needed, not \(3, 2\)"):
        batch_ensemble(nn.Linear(3, 2), 2, initial=lambda members, width: torch.ones(width, members))
    with pytest.raises(ValueError, match="between 0 and 1, not at 2"):
        random_signs(2.0)
    with pytest.raises(ValueError, match="from 0, not -1"):
        near_one(-1.0)


def test_layout() -> None:
    x = {"a": torch.arange(2), "b": torch.randn(2, 3), "scale": 0.5}
    tiled = tile(x, 3)
    assert isinstance(tiled, dict)
    assert tiled["a"].tolist() == [0, 1, 0, 1, 0, 1]
    assert torch.equal(by_member(tiled["b"], 3)[2], x["b"])  # type: ignore[arg-type]
    assert tiled["scale"] == 0.5
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert tile(images, 3).is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr]
    rows = torch.arange(6)
    assert shared_batch(rows, 3) is rows
    assert by_member(rows, 3).tolist() == [[0, 1], [2, 3], [4, 5]]
    for function in (shared_batch, by_member):
        with pytest.raises(ValueError, match=r"7 rows cannot be shared by 3 members; give a batch of 6 or 9"):
            function(torch.arange(7), 3)
    with pytest.raises(ValueError, match="the batch as its first axis"):
        tile((torch.zeros(2), torch.zeros(3)), 2)
    for members in (0, -1, 1.5):
        with pytest.raises(ValueError, match="members is a number from 1"):
            tile(rows, members)  # type: ignore[arg-type]


def test_rows_that_members_cannot_share() -> None:
    with pytest.raises(ValueError, match="5 rows cannot be shared by 3 members"):
        batch_ensemble(nn.Linear(4, 2), 3).rows(torch.zeros(5, 4))


def test_a_network_that_reads_the_weight_is_told() -> None:
    layer = RankOne(nn.Linear(3, 2), 2, near_one())
    with pytest.raises(AttributeError, match="the weight of this Linear differs between members"):
        layer.weight
    assert not hasattr(layer, "weight")
    with pytest.raises(AttributeError, match="no attribute 'wight'"):
        layer.wight


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
@pytest.mark.parametrize("build", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_each_members_normalisation_is_its_own(build: Any, options: dict[str, Any]) -> None:
    plain = [build(4, **options) for _ in range(M)]
    norm = MemberNorm(plain[0], M)
    shape = {nn.BatchNorm1d: (5, 4), nn.BatchNorm2d: (5, 4, 3, 2), nn.BatchNorm3d: (5, 4, 2, 2, 2)}[build]
    if norm.affine:
        with torch.no_grad():
            for j, one in enumerate(plain):
                norm.weight[j], norm.bias[j] = one.weight.normal_(), one.bias.normal_()
    for training in (True, True, False):
        x = torch.randn(M, *shape) * torch.arange(1.0, M + 1).reshape(M, *(1,) * len(shape))
        norm.train(training)
        expected = torch.cat([one.train(training)(rows) for one, rows in zip(plain, x, strict=True)])
        assert torch.equal(norm(x.flatten(0, 1)), expected)
    for name, buffer in norm.named_buffers():
        held = [dict(one.named_buffers())[name] for one in plain]
        assert torch.equal(buffer, torch.stack(held) if buffer.dim() else held[0]), name
