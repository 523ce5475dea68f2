"""Probability integral transforms: checks, and what as many uniform ones would show."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesnn.metrics import Array
from bayesnn.metrics._checks import check_level, reals


def checked_pits(where: str, pits: Mapping[str, Array], level: float) -> dict[str, Tensor]:
    """{name: u [batch]} in double precision on the CPU, each between 0 and 1;
    `level` is the band's.
    """
    check_level(where, level)
    if not pits:
        raise ValueError(f"{where}: nothing to draw; give {{name: u}}.")
    checked = {name: reals(where, f"pits[{name!r}]", u, "batch").cpu() for name, u in pits.items()}
    for name, u in checked.items():
        if bool(((u < 0) | (u > 1)).any()):
            raise ValueError(f"{where}: pits[{name!r}] are not between 0 and 1; give predictive(...).cdf(y).")
    return checked


def binomial_band(n: int, p: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """The quantiles at (1 -+ level) / 2 of Binomial(n, p) / n at each p, [probability]."""
    counts = torch.arange(n + 1, dtype=torch.double)
    ways = torch.lgamma(counts[-1] + 1) - torch.lgamma(counts + 1) - torch.lgamma(counts[-1] - counts + 1)
    p = p.double().unsqueeze(1)
    cdf = (ways + counts * p.log() + (n - counts) * torch.log1p(-p)).exp().cumsum(1)
    ends = [(cdf < q).sum(1).clamp(max=n).double() / n for q in ((1 - level) / 2, (1 + level) / 2)]
    return ends[0], ends[1]
