"""Curvatures that were once wrong without a word, in every structure and
precision, against an oracle.
"""

from functools import partial
from typing import Any

import oracle
import pytest
import torch
from fault_nets import BY_JACOBIANS, BY_LAYERS, BY_LOOP, Joined, Table, TimeFirstEncoder, pairs
from nets import TiedWords
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.curvature import SlowFallback
from bayesnn.functional import batch_size
from bayesnn.guides import Diagonal, Full, Kronecker, Laplace, LowRank

CASES = {**BY_LAYERS, **BY_JACOBIANS, **BY_LOOP}
PRECISIONS = pytest.mark.parametrize("dtype", [torch.double, torch.float], ids=["double", "float"])


def problem(net: nn.Module, x: Any, dtype: torch.dtype) -> tuple[BNN, Any, Tensor]:
    """A regression of all the network's weights, with unit noise."""
    x = pytree.tree_map_only(Tensor, lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, x)
    net = net.to(dtype).eval()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    return model, x, torch.zeros_like(model.outputs(model.values(), x)).detach()


def dense(model: BNN, x: Any) -> Tensor:
    """H, [param, param]."""
    J = oracle.jacobian(model.outputs, model.values(), x)
    return torch.einsum("ncp,ncq->pq", J, J)


def found(guide: Laplace) -> Tensor:
    """H of a fitted guide, from its covariance."""
    return torch.linalg.inv(guide.covariance.double()) - torch.eye(len(guide.loc), dtype=torch.double)


def assert_close(ours: Tensor, true: Tensor, dtype: torch.dtype) -> None:
    """To the rounding of the largest entry: (H + 1)^-1 is inverted again."""
    bound = {torch.double: 1e-10, torch.float: 2e-4}[dtype] * max(1.0, float(true.abs().max()))
    torch.testing.assert_close(ours, true.double(), rtol=0, atol=bound)


@PRECISIONS
@pytest.mark.parametrize("structure", [Full, Diagonal], ids=["full", "diagonal"])
@pytest.mark.parametrize("kind", CASES)
def test_curvature_is_that_of_autograd(kind: str, structure: Any, dtype: torch.dtype) -> None:
    model, x, y = problem(*CASES[kind](), dtype)
    H = dense(model, x)
    ours = found(Laplace(model, structure=structure).fit([(x, y)]))
    assert_close(ours, H if structure is Full else torch.diag(H.diagonal()), dtype)


@PRECISIONS
@pytest.mark.parametrize("structure", [Full, Diagonal, partial(LowRank, rank=3)], ids=["full", "diagonal", "low rank"])
@pytest.mark.parametrize("kind", CASES)
def test_output_variances_are_those_of_the_covariance(kind: str, structure: Any, dtype: torch.dtype) -> None:
    model, x, y = problem(*CASES[kind](), dtype)
    guide = Laplace(model, structure=structure).fit([(x, y)])
    J = oracle.jacobian(model.outputs, model.values(), x)
    covariance = torch.einsum("ncp,pq,ndq->ncd", J, guide.covariance.to(dtype), J)
    tight = 1e-8 if dtype == torch.double else 1e-3
    torch.testing.assert_close(guide.output_distribution(x).covariance_matrix, covariance, rtol=tight, atol=tight)


@PRECISIONS
@pytest.mark.parametrize("kind", BY_LAYERS)
def test_kronecker_has_exact_blocks_of_biases_and_scales(kind: str, dtype: torch.dtype) -> None:
    model, x, y = problem(*BY_LAYERS[kind](), dtype)
    H, ours = dense(model, x), found(Laplace(model, structure=Kronecker).fit([(x, y)]))
    start = 0
    for value in model.values().values():
        block = slice(start, start := start + value.numel())
        if value.dim() == 1:
            assert_close(ours[block, block], H[block, block], dtype)


@pytest.mark.parametrize("kind", [*BY_JACOBIANS, *BY_LOOP])
def test_kronecker_refuses_what_it_has_no_factors_for(kind: str) -> None:
    model, x, y = problem(*CASES[kind](), torch.double)
    name = {"table": "place.weight", "reversed": "encoder.weight", "custom": "scale"}.get(kind.split(",")[0], "")
    with pytest.raises(ValueError, match=rf"no Kronecker factor for '{name}.*use Diagonal"):
        Laplace(model, structure=Kronecker).fit([(x, y)])


def test_kronecker_refuses_a_matrix_that_is_embedding_and_decoder() -> None:
    net = TiedWords().double().eval()
    model = BNN(net, subset.named(net, "embedding"), priors.normal(1.0), likelihoods.categorical)
    with pytest.raises(ValueError, match=r"'embedding.weight' is used in several ways.*use Diagonal"):
        Laplace(model, structure=Kronecker).fit([(torch.randint(0, 7, (4, 3)), torch.tensor([0, 1, 1, 0]))])


@pytest.mark.parametrize("order", [(1, 3), (3, 1)])
def test_kronecker_s_bias_of_short_and_long_sequences(order: tuple[int, int]) -> None:
    """With one position a bias shares the weight's factor; where another batch
    has several they part.
    """
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten(), nn.Linear(4, 2))
    batches = [torch.randn(5, length, 3, dtype=torch.double) for length in order]
    model, _, y = problem(net, batches[0], torch.double)
    ours = found(Laplace(model, structure=Kronecker).fit([(x, y) for x in batches]))
    H = sum((dense(model, x) for x in batches), torch.zeros(()))
    assert_close(ours[12:16, 12:16], H[12:16, 12:16], torch.double)


@pytest.mark.parametrize("rows", [25, 5])
def test_the_last_batch_may_divide_a_table(rows: int) -> None:
    model, x, _ = problem(Table(rows), torch.randn(53, 4), torch.double)
    parts = [(part, torch.zeros(len(part), 2, dtype=torch.double)) for part in x.split(16)]
    assert_close(found(Laplace(model).fit(parts)), dense(model, x), torch.double)


def test_a_first_batch_without_derivatives_proves_nothing() -> None:
    """All pairs of the first batch are identical: the derivatives of |u - v|
    vanish, and with them all evidence.
    """
    model, x, y = problem(Joined(), pairs(8, same=False), torch.double)
    batches = [(x[0], x[0].clone()), x]
    H = sum((dense(model, x) for x in batches), torch.zeros(()))
    assert_close(found(Laplace(model).fit([(x, y) for x in batches])), H, torch.double)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("table, as long", r"Table .*'place\.weight': no axis of its layer's output, \(5, 3\), is the batch of 5"),
        ("reversed", r"Reversed .*'encoder\.weight': no axis .*\(12, 4\), is the batch of 6"),
        ("custom", r"Custom .*'scale': it goes through 'mul'"),
        ("cdist", r"Prototypes by one backward pass .* as torch\.func's derivatives are not those of autograd"),
    ],
)
def test_a_fallback_is_told_once(kind: str, match: str, recwarn: pytest.WarningsRecorder) -> None:
    model, x, y = problem(*CASES[kind](), torch.double)
    with pytest.warns(SlowFallback, match=match):
        Laplace(model).fit([(x, y)])
    recwarn.clear()
    Laplace(model).fit([(x, y), (x, y)])
    assert not [one for one in recwarn if one.category is SlowFallback]


def test_rules_need_no_fallback(recwarn: pytest.WarningsRecorder) -> None:
    for build in BY_LAYERS.values():
        model, x, y = problem(*build(), torch.float)
        Laplace(model, structure=Diagonal).fit([(x, y)])
    assert not [one for one in recwarn if one.category is SlowFallback]


def test_an_encoder_of_every_batch_size() -> None:
    """Sequences of 4 in batches of 1 to 8, some as long as the sequences or a multiple."""
    for batch_first in (True, False):
        model, x, _ = problem(TimeFirstEncoder(batch_first=batch_first), torch.randn(36, 4, 4), torch.double)
        batches = [(part, torch.zeros(batch_size(part), 2, dtype=torch.double)) for part in x.split(list(range(1, 9)))]
        ours = found(Laplace(model, structure=Diagonal).fit(batches)).diagonal()
        assert_close(ours, dense(model, x).diagonal(), torch.double)
