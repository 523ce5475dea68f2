"""Forecasts in equal-width bins, and the bins' sums in the sample, in resamples and under perfect
calibration.

A *group* is one yes-or-no forecast an example: the top label's confidence (one group), or each
class's probability.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from bayesnn.metrics._checks import check_count
from bayesnn.metrics._resample import generator_or_default, uniforms
from bayesnn.metrics.estimate import wilson


@dataclass(frozen=True, eq=False)
class BinSums:
    """Sums over the examples of a bin, each [row, group, bin]."""

    count: Tensor
    forecast: Tensor
    hit: Tensor

    def gap(self) -> Tensor:
        """Hits minus what the forecasts announced."""
        return self.hit - self.forecast


Statistic: TypeAlias = Callable[[BinSums], Tensor]  # [row, group, bin] -> [row, ...]


@dataclass(frozen=True, eq=False)
class CalibrationBins:
    """What a reliability diagram draws; tensors [bin], or [class, bin] for class-wise calibration.

    `edges` [bin + 1]; `count` of examples; `confidence`, the mean forecast; `accuracy`, the
    observed share; `low` and `high`, Wilson's interval of that share with probability `level`. All
    but `count` are nan in an empty bin.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor
    low: Tensor
    high: Tensor
    level: float


class Binning:
    """Forecasts and hits [batch, group], and each forecast's bin: (left,
    right], zero in the first (Guo et al.).
    """

    def __init__(self, where: str, forecast: Tensor, hit: Tensor, bins: int) -> None:
        check_count(where, "bins", bins, 1)
        self.forecast, self.hit, self.bins = forecast.clamp(0, 1), hit.to(forecast.dtype), bins
        self.edges = torch.linspace(0, 1, bins + 1, dtype=forecast.dtype, device=forecast.device)
        self.index = torch.bucketize(self.forecast, self.edges[1:-1])
        self.n, self.groups = self.forecast.shape

    def sums(self, counts: Tensor | None = None) -> BinSums:
        """Bin sums when example i counts `counts[row, i]` times; one row of ones by default."""
        weights = self.forecast.new_ones(1, self.n) if counts is None else counts
        triples = [(weights @ self._columns(group)).tensor_split(3, 1) for group in range(self.groups)]
        count, forecast, hit = (torch.stack(parts, 1) for parts in zip(*triples, strict=True))
        return BinSums(count, forecast, hit)

    def calibrated(self, statistic: Statistic, rows: int, generator: torch.Generator | None) -> Tensor:
        """The statistic in `rows` (>= 1) simulations whose hits have exactly the forecast
        probabilities, [row, ...].

        The groups of one example exclude each other (its label is one class), so one uniform
        number decides all.
        """
        source = generator_or_default(generator, self.forecast.device)
        real = self.sums()
        ends = self.forecast.cumsum(1)
        # The cell [group, bin] in which a label of each group counts; the last one takes labels of
        # no group.
        cells = self.groups * self.bins
        cell = torch.arange(self.groups, device=self.index.device) * self.bins + self.index
        cell = torch.nn.functional.pad(cell, (0, 1), value=cells)
        values = []
        for u in uniforms(self.n, rows, source, self.forecast.device):
            label = torch.searchsorted(ends, u.T.contiguous(), right=True)
            hits = u.new_zeros(len(u), cells + 1).scatter_add_(1, cell.gather(1, label).T, torch.ones_like(u))
            hit = hits[:, :cells].unflatten(1, (self.groups, self.bins))
            values.append(statistic(BinSums(real.count.expand_as(hit), real.forecast.expand_as(hit), hit)))
        return torch.cat(values)

    def report(self, level: float) -> CalibrationBins:
        """Counts, means and intervals for a plot; the group axis goes where there is one group."""
        sums = self.sums()
        count, forecast, hit = (part[0] for part in (sums.count, sums.forecast, sums.hit))
        share = hit / count
        ends = torch.full((2, *share.shape), torch.nan, dtype=share.dtype)
        for g, b in count.nonzero().tolist():
            ends[:, g, b] = torch.tensor(wilson(float(share[g, b]), int(count[g, b]), level=level))
        low, high = ends.to(share.device)
        fields = (count.long(), forecast / count, share, low, high)
        count, confidence, accuracy, low, high = (x[0] if self.groups == 1 else x for x in fields)
        return CalibrationBins(self.edges, count, confidence, accuracy, low, high, level)

    def _columns(self, group: int) -> Tensor:
        """[batch, 3 bin]: membership in each bin, the same times the forecast,
        and times the hit.
        """
        index, f, h = self.index[:, group, None], self.forecast[:, group, None], self.hit[:, group, None]
        places = torch.cat([index, index + self.bins, index + 2 * self.bins], 1)
        values = torch.cat([torch.ones_like(f), f, h], 1)
        return f.new_zeros(self.n, 3 * self.bins).scatter_(1, places, values)
