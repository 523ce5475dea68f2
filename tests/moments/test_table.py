"""Every rule in the table: beside a million draws where it is exact for normal inputs, else beside
its formula.

False alarms: 1e-6 for each comparison of means or variances (`statistical.py`), 1e-4 for all of
the file.
"""

from functools import cache
from typing import Any

import pytest
import torch
from moment_cases import (
    BAGS,
    CERTAIN,
    DRAWN,
    LARGEST,
    MOVED,
    REFUSED,
    ROOT_MEAN_SQUARES,
    RULES,
    STANDARDISED,
    Drawn,
    label,
    name_of,
)
from statistical import bound
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments import Moments

DRAWS, CHUNK = 1_000_000, 100_000
CASE = {key: case for case in DRAWN for key in case.keys}
CERTAIN_KEYS = [key for key in RULES if name_of(key) in CERTAIN]
MOVED_KEYS = [
    pytest.param(key, marks=[pytest.mark.gpu] if name_of(key) == "cuda" else [])
    for key in RULES
    if key not in CASE and name_of(key) in MOVED
]


def test_every_rule_has_a_case() -> None:
    moved = {param.values[0] for param in MOVED_KEYS}
    approximate = [set(LARGEST), set(STANDARDISED), set(ROOT_MEAN_SQUARES)]
    cases = [set(CASE), moved, set(CERTAIN_KEYS), *approximate, set(BAGS), set(REFUSED)]
    assert set[Any]().union(*cases) == set(RULES)
    assert sum(map(len, cases)) == len(RULES), "a rule has two cases"


@cache
def given(*shape: int) -> Moments:
    """Means and variances [*shape] of the size of a network's activations, one
    of them nearly certain.
    """
    generator = torch.Generator().manual_seed(0)
    loc, variance = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator) + 0.1
    variance.view(-1)[0] = 1e-6
    return Moments(loc, variance)


def found(key: Any, case: Drawn) -> Moments:
    x = given(*case.shape)
    result: Moments = case.call(key, Moments(x.loc[None], x.variance[None]))
    return result


@pytest.mark.parametrize("key", CASE, ids=label)
def test_of_draws(key: Any) -> None:
    """z-scores of the mean and the variance of every entry."""
    case, result = CASE[key], found(key, CASE[key])
    if key is not case.keys[0]:
        first = found(case.keys[0], case)
        assert torch.equal(result.loc, first.loc)
        assert torch.equal(result.variance, first.variance)
        return
    x = given(*case.shape)
    deviation = x.variance.sqrt()
    sums = torch.zeros(4, *result.loc.shape[1:], dtype=torch.double)  # of the first four powers
    for _ in range(DRAWS // CHUNK):
        drawn = case.call(key, torch.randn(CHUNK, *case.shape).mul_(deviation).add_(x.loc))
        assert drawn.shape[1:] == result.loc.shape[1:] == result.variance.shape[1:]
        distance = drawn - result.loc
        square = distance.square()
        for total, power in zip(sums, (distance, square, square * distance, square.square()), strict=True):
            total += power.sum(0).double()
    first, second, _, fourth = sums / DRAWS
    variance = result.variance[0].double()
    largest = bound(variance.numel())
    assert (first.abs() <= largest * (second / DRAWS).sqrt() + 1e-7).all(), f"mean off by {first}"
    error = ((fourth - second.square()).clamp(min=0) / DRAWS).sqrt()
    assert ((second - variance).abs() <= largest * error + 1e-12).all(), f"variance {second}, not {variance}"


WRONG = {
    "a hundredth of a standard deviation": lambda x: Moments(x.loc + 0.01 * x.variance.sqrt(), x.variance),
    "a hundredth of a variance": lambda x: Moments(x.loc, 1.01 * x.variance),
}


@pytest.mark.parametrize("error", WRONG)
def test_a_wrong_rule_is_noticed(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def identity(x: Any) -> Any:
        return WRONG[error](x) if isinstance(x, Moments) else x

    monkeypatch.setitem(CASE, identity, Drawn((identity,)))
    with pytest.raises(AssertionError, match=r"mean off by|variance .* not"):
        test_of_draws(identity)


def entries(result: Any) -> list[Any]:
    return [result] if isinstance(result, Tensor) else list(result)


@pytest.mark.parametrize("key", MOVED_KEYS, ids=label)
def test_of_moved_entries(key: Any) -> None:
    """Where the function puts the numbers 0, 1, 2, ... is where means and variances must be."""
    case = MOVED[name_of(key)]
    x = given(*case.shape)
    places = case.call(key, torch.arange(float(x.loc.numel())).reshape(case.shape))
    result = case.call(key, x)
    for one, place in zip(entries(result), entries(places), strict=True):
        assert one.loc.dtype == one.variance.dtype == place.dtype
        assert torch.equal(one.loc, x.loc.flatten()[place.long()].to(one.loc))
        assert torch.equal(one.variance, x.variance.flatten()[place.long()].to(one.variance))


@pytest.mark.parametrize("key", [torch.cat, torch.stack, torch.hstack, torch.vstack], ids=label)
def test_of_random_and_certain_entries_side_by_side(key: Any) -> None:
    x, certain = given(2, 3), torch.full((2, 3), 7.0)
    result = key([certain, x])
    assert torch.equal(result.loc, key([certain, x.loc]))
    assert torch.equal(result.variance, key([torch.zeros(2, 3), x.variance]))


@pytest.mark.parametrize("name", ["view_as", "reshape_as", "expand_as", "type_as", "to"])
def test_certain_entries_in_the_shape_of_random_ones(name: str) -> None:
    result = getattr(torch.arange(6).reshape(2, 3), name)(given(2, 3))
    assert not isinstance(result, Moments)
    assert result.shape == (2, 3)


@pytest.mark.parametrize("key", CERTAIN_KEYS, ids=label)
def test_of_what_does_not_depend_on_the_values(key: Any) -> None:
    x, args = given(2, 3), CERTAIN[name_of(key)]
    result, expected = key(x, *args), key(x.loc, *args)
    assert not isinstance(result, Moments)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    if not name_of(key).startswith(("rand", "new_empty")):
        assert torch.equal(result, expected)


@pytest.mark.parametrize("key", LARGEST, ids=label)
def test_of_the_largest_mean(key: Any) -> None:
    """An approximation: the entry that a pooling of the means takes, with its own variance."""
    shape, args = LARGEST[key]
    loc = torch.randperm(torch.Size(shape).numel()).reshape(1, *shape).float()  # distinct
    x = Moments(loc, torch.rand_like(loc))
    result = key(x, *args)
    assert torch.equal(result.loc, key(loc, *args))
    of_mean = dict(zip(loc.flatten().tolist(), x.variance.flatten().tolist(), strict=True))
    assert result.variance.flatten().tolist() == [of_mean[mean] for mean in result.loc.flatten().tolist()]


@pytest.mark.parametrize("key", STANDARDISED, ids=label)
def test_of_an_expected_spread(key: Any) -> None:
    """An approximation: centred exactly, by the matrix C = 1 - 11^T / n, over
    the root of E[x^T C x / n].
    """
    x, groups = given(2, 6), STANDARDISED[key]
    n, weight, bias = (6 if groups is None else 2), torch.randn(6), torch.randn(6)
    result = key(x, (6,) if groups is None else groups, weight, bias, 1e-5)
    centre = torch.eye(n) - 1 / n
    m, v = x.loc.reshape(2, -1, n), x.variance.reshape(2, -1, n)
    spread = ((m @ centre * m).sum(-1, keepdim=True) + (v * centre.diagonal()).sum(-1, keepdim=True)) / n + 1e-5
    torch.testing.assert_close(result.loc, (m @ centre / spread.sqrt()).reshape(2, 6) * weight + bias)
    torch.testing.assert_close(result.variance, (v @ centre.square() / spread).reshape(2, 6) * weight.square())


@pytest.mark.parametrize("key", ROOT_MEAN_SQUARES, ids=label)
def test_of_an_expected_square(key: Any) -> None:
    """An approximation: over the root of E[x^T x / n]."""
    x, weight = given(2, 6), torch.randn(6)
    result = key(x, (6,), weight, 1e-5)
    square = (x.loc.square() + x.variance).sum(-1, keepdim=True) / 6 + 1e-5
    torch.testing.assert_close(result.loc, x.loc * weight / square.sqrt())
    torch.testing.assert_close(result.variance, x.variance * weight.square() / square)


@pytest.mark.parametrize("key", BAGS, ids=label)
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_of_bags_of_words(key: Any, mode: str) -> None:
    """Exact: the bags are linear in the table, with the Jacobian that torch
    finds; one has a row twice.
    """
    x, words = given(5, 3), torch.tensor([[1, 4, 1], [0, 2, 3]])
    weights = torch.tensor([[0.5, 1.0, 2.0], [1.0, -1.0, 3.0]]) if mode == "sum" else None

    def bags(table: Any) -> Any:
        return key(words, table, mode=mode, per_sample_weights=weights, padding_idx=3)

    jacobian = torch.autograd.functional.jacobian(bags, x.loc)
    torch.testing.assert_close(bags(x).loc, bags(x.loc))
    torch.testing.assert_close(bags(x).variance, torch.einsum("bnwk,wk->bn", jacobian.square(), x.variance))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_of_bags_of_several_sizes(mode: str, last: bool) -> None:
    x, words = given(5, 3), torch.tensor([1, 4, 1, 0, 3, 3, 2, 2])
    offsets = torch.tensor([0, 3, 3, 4, 8] if last else [0, 3, 3, 4])  # one of them empty

    def bags(table: Any) -> Any:
        return F.embedding_bag(words, table, offsets, mode=mode, padding_idx=-2, include_last_offset=last)

    jacobian = torch.autograd.functional.jacobian(bags, x.loc)
    torch.testing.assert_close(bags(x).loc, bags(x.loc))
    torch.testing.assert_close(bags(x).variance, torch.einsum("bnwk,wk->bn", jacobian.square(), x.variance))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_in_training_mode(affine: bool) -> None:
    """An approximation: the statistics are those of the means, and constants."""
    x = given(9, 4)
    weight, bias = (torch.randn(4), torch.randn(4)) if affine else (torch.ones(4), torch.zeros(4))
    options = (weight, bias) if affine else ()
    result = F.batch_norm(x, None, None, *options, training=True)
    scale = weight / (x.loc.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(result.loc, (x.loc - x.loc.mean(0)) * scale + bias)
    torch.testing.assert_close(result.variance, x.variance * scale.square())


@pytest.mark.parametrize("key", REFUSED, ids=label)
def test_refused(key: Any) -> None:
    x = given(2, 4)
    with pytest.raises(NotImplementedError, match=f"moments: {name_of(key)} .* take a subset behind them"):
        key(x, x, *REFUSED[key])
