"""Rows of a table of random vectors: embeddings, and their sums for each example."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments.shapes import both_moments
from bayesnn.moments.table import moment_rule
from bayesnn.moments.uses import repeats
from bayesnn.moments.value import Moments, loc_of, variance_of

_INTEGERS = (torch.int64, torch.int32)


@moment_rule(F.embedding)
def _embedding(
    input: Tensor, weight: Moments, padding_idx: int | None = None, max_norm: float | None = None, *_: Any, **__: Any
) -> Moments:
    if max_norm is not None:
        raise NotImplementedError("moments: embedding(max_norm=...) rescales random rows; make it with max_norm=None")
    return looked_up("embedding", weight, input)


_embedding.moves = True  # type: ignore[attr-defined]  # it notes its rows itself
_entries = both_moments(Tensor.__getitem__)


@moment_rule(Tensor.__getitem__)
def _getitem(x: Any, index: Any) -> Any:
    if isinstance(x, Moments) and x.is_weight and isinstance(index, Tensor) and index.dtype in _INTEGERS:
        return looked_up("__getitem__", x, index)
    return _entries(x, index)


_getitem.moves = True  # type: ignore[attr-defined]


def looked_up(what: str, table: Moments, rows: Tensor) -> Moments:
    """Rows [..., n] of a table [row, n]; whether an example has one twice is noted."""
    found = Moments(table.loc[rows], table.variance[rows])
    _note(what, table, rows)
    batch = table.uses.batch if table.uses is not None else rows.shape[0] if rows.dim() else 1
    if repeats(rows, batch):
        found.words = rows
    return found


def _note(what: str, table: Moments, rows: Tensor) -> None:
    before = table.entries
    if table.uses is None:
        return
    if before is None:
        table.uses.look_up(what, rows)
    else:
        table.uses.take(what, lambda places: before(places)[rows])


@moment_rule(F.embedding_bag)
def _embedding_bag(
    input: Tensor,
    weight: Any,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Moments:
    """Sums and means sum_t c_t E[word_t]: exact, a row's coefficient being the sum of its c_t."""
    if mode not in ("sum", "mean") or max_norm is not None or isinstance(per_sample_weights, Moments):
        raise NotImplementedError(
            "moments: embedding_bag has a rule for mode='sum' and 'mean' with certain weights and without max_norm; "
            "for others use MeanField, or a subset without the embedding"
        )
    m, v = loc_of(weight), variance_of(weight)
    assert v is not None, "the table is random"
    options = (None, 2.0, False, mode, False, per_sample_weights, include_last_offset, padding_idx)
    loc = F.embedding_bag(input, m, offsets, *options)
    bags, words = _bags(input, offsets, len(loc)), input.flatten().long()
    ones = m.new_ones(len(words)) if per_sample_weights is None else per_sample_weights.flatten()
    if padding_idx is not None:
        ones = ones * (words != padding_idx % len(m))
    if mode == "mean":
        ones = ones / m.new_zeros(len(loc)).index_add(0, bags, ones).clamp(min=1)[bags]
    pairs, place = torch.unique(bags * len(m) + words, return_inverse=True)
    coefficients = m.new_zeros(len(pairs)).index_add(0, place, ones)
    rows = coefficients.square().unsqueeze(1) * v[pairs % len(m)]
    return Moments(loc, torch.zeros_like(loc).index_add(0, pairs // len(m), rows))


def _bags(input: Tensor, offsets: Tensor | None, count: int) -> Tensor:
    """The bag of every word, [word]."""
    if offsets is None:
        return torch.arange(count, device=input.device).repeat_interleave(input.shape[1])
    numbers = torch.arange(len(input), device=input.device)
    return torch.searchsorted(offsets[:count].long(), numbers, right=True) - 1
