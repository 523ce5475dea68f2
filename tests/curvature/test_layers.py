"""Derivatives by passes back to the layers, against the dense oracle: every
kind of layer, every subset.
"""

from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from nets import NETS, TORCHVISION, mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from bayesnn import likelihoods, subset
from bayesnn.curvature import JacobianRows, forward_pass, ggn_diagonal
from bayesnn.curvature import jacobian_rows as rows
from bayesnn.curvature.jacobian_rows import identity
from bayesnn.functional import call, parameters, semidefinite_root
from bayesnn.functional.roots import triangular

FISHERS: dict[str, Any] = {
    "categorical": likelihoods.categorical,
    "bernoulli": likelihoods.bernoulli,
    "normal": likelihoods.normal(0.5),
    "poisson": likelihoods.poisson,
}


class Positions(nn.Module):
    """A linear layer at every place of a sequence, then layer and group
    normalisation with scales of their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Linear(4, 6)
        self.norm = nn.LayerNorm([3, 6])
        self.group = nn.GroupNorm(2, 6)
        self.head = nn.Linear(18, 2)
        for parameter in (self.norm.weight, self.norm.bias, self.group.weight):
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        # in place: the layer's own output is changed afterwards
        h = self.norm(self.each(x)).relu_()
        return self.head(self.group(h.mT).flatten(1))


class Turned(nn.Module):
    """Time before batch, for a linear layer; `flat` puts both on one axis, where the shape does
    not show the batch.
    """

    def __init__(self, *, flat: bool) -> None:
        super().__init__()
        self.flat, self.each, self.head = flat, nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(0, 1)
        h = self.each(h.flatten(0, 1)).unflatten(0, h.shape[:2]) if self.flat else self.each(h)
        return self.head(h.tanh().mean(0))


class Padded(nn.Module):
    """An embedding with a padding word, whose vector gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 3, padding_idx=2), nn.Linear(3, 2)
        nn.init.normal_(self.embedding.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).tanh().sum(1))


def convolutions(**options: Any) -> Callable[[], tuple[Any, Any]]:
    return lambda: (
        nn.Sequential(
            nn.Conv2d(4, 6, 3, **options), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 2)
        ),
        torch.randn(3, 4, 7, 8),
    )


LAYERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    **NETS,
    "positions": lambda: (Positions(), torch.randn(3, 3, 4)),
    "time first": lambda: (Turned(flat=False), torch.randn(3, 5, 4)),
    "time first, square": lambda: (Turned(flat=False), torch.randn(3, 3, 4)),
    "time first, flat": lambda: (Turned(flat=True), torch.randn(3, 5, 4)),
    "padding": lambda: (Padded(), torch.tensor([[0, 2, 1], [2, 2, 3], [4, 4, 6]])),
    "stride": convolutions(stride=2, padding=1),
    "stride and dilation": convolutions(stride=(2, 1), dilation=(1, 2), padding=(2, 0)),
    "groups": convolutions(groups=2, bias=False),
    "same": convolutions(padding="same", dilation=2),
    "reflect": convolutions(padding=1, padding_mode="reflect"),
    "1-D": lambda: (nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(12, 2)), torch.randn(3, 2, 5)),
    "3-D": lambda: (nn.Sequential(nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Linear(16, 2)), torch.randn(3, 1, 3, 3, 3)),
    "transposed": lambda: (nn.Sequential(nn.ConvTranspose1d(2, 1, 2), nn.Flatten()), torch.randn(3, 2, 3)),
}
BY_JACOBIANS = {"lstm", "two names, lstm", "temperature", "transposed"}
"""Where no rule applies: the slower path has to take over, and be right."""


def double(kind: str) -> tuple[nn.Module, Any]:
    net, x = LAYERS[kind]()
    x = pytree.tree_map_only(Tensor, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, x)
    return net.double().eval(), x


def chosen(net: nn.Module, which: str) -> subset.Subset:
    total = len(subset.everything(net))
    return {
        "all": lambda: subset.everything(net),
        "few": lambda: subset.random(net, min(7, total)),
        "most": lambda: subset.random(net, 3 * total // 4),
    }[which]()


def rows_of(net: nn.Module, which: subset.Subset) -> JacobianRows:
    return JacobianRows(net, {n: v for n, v in parameters(net).items() if n in which.names}, which.index)


def dense(net: nn.Module, which: subset.Subset, x: Any) -> Tensor:
    values = {n: v for n, v in parameters(net).items() if n in which.names}
    jac = oracle.jacobian(lambda v, x: call(net, v, x), values, x)
    kept = which.put(
        {n: torch.zeros_like(v) for n, v in values.items()},
        {n: torch.ones(which.event_shape(n), dtype=torch.double) for n in which.names},
    )
    return jac[..., oracle.flat(kept).bool()]


@pytest.mark.parametrize("which", ["all", "few", "most"])
@pytest.mark.parametrize("kind", LAYERS)
def test_rows_equal_the_dense_jacobian(kind: str, which: str) -> None:
    net, x = double(kind)
    part = chosen(net, which)
    found = rows_of(net, part)
    outputs, jac = found.of(x, identity)
    torch.testing.assert_close(jac, dense(net, part, x))
    torch.testing.assert_close(outputs, call(net, {}, x))
    if which == "all":
        assert found.layerwise is (kind not in BY_JACOBIANS)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6, 10])
@pytest.mark.parametrize(
    "net", [Turned(flat=False), Turned(flat=True), Positions()], ids=["turned", "flat", "positions"]
)
def test_a_batch_as_long_as_a_sequence_is_not_mistaken_for_it(net: nn.Module, batch: int) -> None:
    """After the layout was learned from another batch: sequences have 5 places
    here, those of `Positions` 3.
    """
    net = net.double()
    shape = (3, 4) if isinstance(net, Positions) else (5, 4)
    part = subset.everything(net)
    found = rows_of(net, part)
    for size in (4, batch):
        x = torch.randn(size, *shape, dtype=torch.double)
        torch.testing.assert_close(found.of(x, identity)[1], dense(net, part, x))


@pytest.mark.parametrize("family", FISHERS)
@pytest.mark.parametrize("which", ["all", "few", "most"])
@pytest.mark.parametrize("kind", ["mlp", "conv", "tied", "lstm", "encoder", "positions", "groups"])
def test_squares_are_the_diagonal_of_the_dense_matrix(
    kind: str, which: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = double(kind)
    part, fisher = chosen(net, which), FISHERS[family].fisher
    monkeypatch.setattr(rows, "MEMORY", 2_000)  # several chunks
    J = dense(net, part, x)
    L = fisher(call(net, {}, x))
    found = ggn_diagonal(rows_of(net, part), x, lambda outputs, examples: semidefinite_root(fisher(outputs)))
    torch.testing.assert_close(found, torch.einsum("ncp,ncd,ndp->p", J, L, J))


@pytest.mark.parametrize("kind", TORCHVISION)
def test_torchvision(kind: str) -> None:
    """Every weight of a whole ResNet, DenseNet, vision transformer, Swin: a random 40 of them,
    against autograd.
    """
    net, x = TORCHVISION[kind]()
    net, x = net.double().eval(), x.double()
    part = subset.random(net, 40, generator=torch.Generator().manual_seed(0))
    _, jac = rows_of(net, part).of(x[:2], identity)
    values = {n: v.clone().requires_grad_() for n, v in parameters(net).items() if n in part.names}
    for example in range(2):
        for output in (0, 7):
            row = torch.autograd.grad(call(net, values, x[:2])[example, output], list(values.values()))
            expected = torch.cat(list(part.take(dict(zip(values, row, strict=True)) | _rest(net, values)).values()))
            torch.testing.assert_close(jac[example, output], expected)


def _rest(net: nn.Module, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in parameters(net).items() if name not in values}


def test_roots_are_asked_once_for_every_example(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = mlp(outputs=3), torch.randn(50, 3)
    monkeypatch.setattr(rows, "MEMORY", 5_000)
    seen = []

    def roots(outputs: Tensor, examples: slice) -> Tensor:
        seen.append(examples)
        return identity(outputs)

    part = subset.everything(net)
    parts = [part for _, _, part in rows_of(net, part).chunks(x, roots)]
    assert len(parts) > 3
    assert torch.cat([torch.arange(50)[examples] for examples in seen]).tolist() == list(range(50))
    torch.testing.assert_close(torch.cat(parts), dense(net, part, x).float(), rtol=1e-4, atol=1e-5)


def test_a_pass_names_what_it_does_not_know() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.gain = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.layer.weight.T) * self.gain + self.layer.bias

    net = Net()
    done = forward_pass(net, parameters(net), torch.randn(2, 3))
    assert done.unknown.keys() == {"layer.weight", "layer.bias", "gain"}
    assert done.unknown["gain"] == "mul"
    assert not done.uses


RANKS = {"full": 5, "deficient": 3, "one": 1, "none": 0}


@pytest.mark.parametrize("rank", RANKS.values())
def test_roots_of_any_rank(rank: int) -> None:
    half = torch.randn(4, 5, rank, dtype=torch.double)
    matrix = half @ half.mT
    root = semidefinite_root(matrix)
    torch.testing.assert_close(root @ root.mT, matrix)
    assert root.shape == (4, 5, rank)
    lower = triangular(root)
    torch.testing.assert_close(lower @ lower.mT, matrix)
    assert (lower.triu(1) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_the_root_of_softmax_has_one_column_less_than_classes(dtype: torch.dtype) -> None:
    logits = torch.randn(200, 10, dtype=dtype) * torch.logspace(-1, 1.5, 200, dtype=dtype).unsqueeze(-1)
    fisher = likelihoods.categorical.fisher(logits)
    root = semidefinite_root(fisher)
    assert root.shape == (200, 10, 9)
    error = (root @ root.mT - fisher).abs().amax((1, 2))
    # also where p is 1 but for 1e-20
    assert (error <= 10 * torch.finfo(dtype).eps * fisher.abs().amax((1, 2))).all()
