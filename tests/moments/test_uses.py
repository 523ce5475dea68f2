"""Random parameters that a pass uses twice: refused where the uses may meet, else exact."""

from typing import Any

import pytest
import torch
from nets import NETS
from statistical import assert_mean
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.functional import parameters
from bayesnn.guides import MultiplicativeNoise
from bayesnn.guides.multiplicative_noise import PerWeight
from bayesnn.moments import Moments, RepeatedUse, propagate_moments

DRAWS = 100_000


class Applied(nn.Module):
    """A function of a layer and the inputs."""

    def __init__(self, layer: nn.Module, function: Any) -> None:
        super().__init__()
        self.layer, self.function = layer.requires_grad_(requires_grad=False), function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(self.layer, x)
        return result


def random(net: nn.Module) -> dict[str, Tensor]:
    """Every parameter, with a variance of its own for every entry."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: Moments(value.double(), torch.rand(value.shape, generator=generator).double() + 0.1)
        for name, value in parameters(net).items()
    }


def check(net: nn.Module, x: Tensor) -> None:
    """Outputs that are linear in the parameters: E f and Var f from the Jacobian, exact."""
    values = random(net.double())
    found = propagate_moments(net, values, x)
    names = list(values)

    def outputs(*tensors: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(names, tensors, strict=True)), (x,))

    at: Any = tuple(value.loc for value in values.values() if isinstance(value, Moments))
    rows = torch.autograd.functional.jacobian(outputs, at)
    variances = [value.variance for value in values.values() if isinstance(value, Moments)]
    parts = [(row.square() * v).flatten(found.loc.dim()).sum(-1) for row, v in zip(rows, variances, strict=True)]
    torch.testing.assert_close(found.loc, outputs(*at))
    torch.testing.assert_close(found.variance, torch.stack(parts).sum(0))


REPEATED: dict[str, tuple[Any, Any, Any]] = {
    "difference": (lambda: nn.Linear(3, 2), lambda a, x: a(x) - a(x), (4, 3)),
    "twice in turn": (lambda: nn.Linear(3, 3), lambda a, x: a(a(x)), (4, 3)),
    "both sides": (lambda: nn.Linear(3, 3, bias=False), lambda a, x: F.linear(x, a.weight @ a.weight.T), (4, 3)),
    "with itself": (lambda: nn.Linear(3, 3, bias=False), lambda a, x: F.linear(x, a.weight @ a.weight), (4, 3)),
    "a part again": (lambda: nn.Linear(3, 2), lambda a, x: a(x) + F.linear(x, a.weight[:1]), (4, 3)),
    "by keyword": (lambda: nn.Linear(3, 2), lambda a, x: a(x) + F.linear(input=x, weight=a.weight), (4, 3)),
    "a bias again": (lambda: nn.Linear(3, 2), lambda a, x: a(x) + a.bias, (4, 3)),
    "in a list": (lambda: nn.Linear(3, 2), lambda a, x: a(x) + torch.cat([a.bias[:1], a.bias[:1]]), (4, 3)),
}


@pytest.mark.parametrize("kind", REPEATED)
def test_a_second_use_is_refused(kind: str) -> None:
    make, function, shape = REPEATED[kind]
    net = Applied(make(), function)
    message = r"moments: .* at .*test_uses.py:\d+ uses the random 'layer\.\w+' a second time .*a subset without 'layer"
    with pytest.raises(RepeatedUse, match=message):
        propagate_moments(net.double(), random(net), torch.randn(shape).double())


@pytest.mark.parametrize("name", ["tied", "tied words", "layer twice", "norm twice"])
def test_tied_networks_are_refused(name: str) -> None:
    net, x = NETS[name]()
    values = {key: Moments(value, value.square() + 0.1) for key, value in parameters(net).items()}
    with pytest.raises(RepeatedUse, match="a second time"):
        propagate_moments(net, values, x)
    head = {key: values[key] for key in list(values)[-2:]}
    assert propagate_moments(net, head, x).variance.gt(0).all()


DISTINCT: dict[str, tuple[Any, Any, Any]] = {
    "once": (lambda: nn.Linear(3, 2), lambda a, x: a(x), (4, 3)),
    "twice as much": (lambda: nn.Linear(3, 2), lambda a, x: a(x) + 0 * x[:, :2], (4, 3)),
    "halves": (lambda: nn.Linear(3, 2), lambda a, x: F.linear(x, a.weight[:1]) - F.linear(x, a.weight[1:]), (4, 3)),
    "chunks": (
        lambda: nn.Linear(4, 4),
        lambda a, x: x @ a.weight.chunk(2)[0].T + x.flip(1) @ a.weight.chunk(2)[1].T,
        (4, 4),
    ),
    "transposed": (lambda: nn.Linear(3, 2), lambda a, x: x @ a.weight.T + a.bias, (4, 3)),
    "matrix and vector": (
        lambda: nn.Linear(3, 2),
        lambda a, x: torch.einsum("bi,oi->bo", x, a.weight) + a.bias,
        (4, 3),
    ),
    "its sum": (lambda: nn.Linear(3, 2), lambda a, x: torch.einsum("bk,o->bo", x, a.bias), (4, 3)),
    "added to itself": (lambda: nn.Linear(3, 2), lambda a, x: x[:, :2] + (a.bias + a.bias), (4, 3)),
}


@pytest.mark.parametrize("kind", DISTINCT)
def test_uses_that_do_not_meet_are_exact(kind: str) -> None:
    make, function, shape = DISTINCT[kind]
    check(Applied(make(), function), torch.randn(shape).double())


def test_what_is_certain_may_be_used_again() -> None:
    """Entries without variance, and layers without parameters."""
    act = nn.ReLU()
    net = nn.Sequential(nn.Linear(3, 3), act, nn.Linear(3, 3), act).requires_grad_(requires_grad=False)
    values = {"0.weight": Moments(torch.eye(3), torch.ones(3, 3)), "2.bias": Moments(torch.zeros(3), torch.ones(3))}
    assert propagate_moments(net, values, torch.ones(2, 3)).variance.gt(0).all()
    again = Applied(nn.Linear(3, 2), lambda a, x: a(x) + F.linear(x, a.weight))
    variance = torch.zeros(2, 3)
    values = {
        "layer.weight": Moments(torch.ones(2, 3), variance),
        "layer.bias": Moments(torch.ones(2), torch.ones(2)),
    }
    torch.testing.assert_close(propagate_moments(again, values, torch.ones(4, 3)).variance, torch.ones(4, 2))


def test_every_pass_begins_anew() -> None:
    net, x = nn.Linear(3, 2).requires_grad_(requires_grad=False), torch.randn(5, 3)
    values = random(net.double())
    whole = propagate_moments(net, values, x.double())
    for _ in range(2):
        parts = propagate_moments(net, values, x.double(), chunk=2)
        torch.testing.assert_close(parts.variance, whole.variance)


WORDS = torch.tensor([[2, 2, 2, 2, 2], [0, 1, 2, 3, 4], [1, 5, 1, 6, 5]])
ROWS: dict[str, tuple[Any, Tensor]] = {
    "mean": (lambda e, x: e(x).mean(1), WORDS),
    "sum": (lambda e, x: e(x).sum(dim=1), WORDS),
    "sum of units too": (lambda e, x: e(x).sum((1, 2)).unsqueeze(-1), WORDS),
    "sequence first": (lambda e, x: e(x.T).mean(0), WORDS),
    "one example": (lambda e, x: e(x).mean(1), WORDS[:1]),
    "two axes": (lambda e, x: e(x.reshape(len(x), 1, -1)).sum((1, 2)), WORDS),
    "each by itself": (lambda e, x: e(x) / 2 + 1, WORDS),
    "a matrix": (lambda e, x: F.linear(e(x), torch.ones(2, 4).double()).mean(1), WORDS),
    "by index": (lambda e, x: e.weight[x].mean(1), WORDS),
    "distinct": (lambda e, x: e(x).flatten(1), WORDS[1:2]),
    "two words": (lambda e, x: e(x[:, 0]) - 2 * e(x[:, 1]), WORDS[1:, [0, 1]]),
    "one for each": (lambda e, x: e(x), torch.tensor([3, 3, 1])),
    "bags": (lambda e, x: F.embedding_bag(x, e.weight), WORDS),
}


@pytest.mark.parametrize("kind", ROWS)
def test_of_repeated_words(kind: str) -> None:
    function, words = ROWS[kind]
    check(Applied(nn.Embedding(7, 4), function), words)


MEETING: dict[str, Any] = {
    "flattened": lambda e, x: e(x).flatten(1),
    "transposed": lambda e, x: e(x).mT.mean(2),
    "positions added": lambda e, x: (e(x) + torch.arange(20.0).reshape(5, 4)).mean(1),
    "two lookups": lambda e, x: e(x[:, 0]) - e(x[:, 2]),
    "lookup and product": lambda e, x: e(x[:, 0]) @ e.weight.T,
}


@pytest.mark.parametrize("kind", MEETING)
def test_repeated_words_that_meet_are_refused(kind: str) -> None:
    net = Applied(nn.Embedding(7, 4), MEETING[kind])
    with pytest.raises(RepeatedUse, match=r"an example has one twice|a second time"):
        propagate_moments(net.double(), random(net), WORDS)


def test_equal_words_behind_an_activation() -> None:
    """Beside draws: 1e-6 for each comparison is the rate of false alarms (`statistical.py`)."""
    net = Applied(nn.Embedding(7, 3), lambda e, x: F.relu(e(x)).mean(1)).double()
    table = random(net)["layer.weight"]
    assert isinstance(table, Moments)
    found = propagate_moments(net, {"layer.weight": table}, WORDS)
    draws = F.relu(table.loc + table.variance.sqrt() * torch.randn(DRAWS, 7, 3).double())[:, WORDS].mean(2)
    assert_mean(draws, found.loc)
    assert_mean((draws - found.loc).square(), found.variance)


def test_linearised_distributions_know_tied_weights() -> None:
    """Exact for outputs that are linear in the weights: the difference is certain."""
    torch.manual_seed(0)
    net = Applied(nn.Linear(3, 2), lambda a, x: a(x) - 0.5 * a(2 * x))
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    guide = MultiplicativeNoise(model, PerWeight(variance=0.2))
    x = torch.randn(4, 3)
    with pytest.raises(RepeatedUse, match="linearised_distribution"):
        guide.output_distribution(x)
    found = guide.linearised_distribution(x)
    torch.testing.assert_close(found.mean, net(x))
    torch.testing.assert_close(found.variance, torch.full((4, 2), 0.2 * 0.25), rtol=1e-4, atol=1e-6)
