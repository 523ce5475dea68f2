"""Nodes for the mean of a function that switches at 0, over a random effect loc + scale t.

The effect t is Cauchy, Student-t or normal.
"""

import math

import torch
from torch import Tensor

STEP, DIGITS = 0.06, 30.0
"""The distance of two nodes; -log of what is cut off at either end."""
LEAST = 1e-200
"""The smallest angle of a panel, whose weight is then 0."""


@torch.no_grad()
def effect_nodes(df: float, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes t and weights, [*batch, node], of E h(loc + scale t) for a smooth h that switches
    around 0.

    With t = tan of a uniform angle the Cauchy density is gone. The angle at which loc + scale
    t = 0 splits it into two panels, of angle a = atan2(scale, -loc) and pi - a, and in each of
    them

        t = cot(a (1 - s)), s = 1 / (1
            + exp(-pi sinh x)), by the trapezoidal rule in x: the tanh-sinh rule.

    Nodes crowd at both ends: where loc + scale t is 0, so that h may switch at any scale, and
    where t is infinite. Other families weigh the nodes by the ratio of their density to the
    Cauchy's. Nodes and weights are constants: derivatives of the mean are means of derivatives, by
    the same nodes.

    Reference: Takahasi, Mori (1974), Double exponential formulas for numerical integration.

    Args:
        df: degrees of freedom: 1 is Cauchy, infinity normal.
        loc: double.
        scale: at least 0, of the shape of loc. For 0 all nodes have their weight at loc.
    """
    count = round(math.asinh(DIGITS / math.pi) / STEP)
    x = STEP * torch.arange(-count, count + 1, dtype=torch.double, device=loc.device)
    end = math.pi * torch.sinh(x)
    s, rest = torch.sigmoid(end), torch.sigmoid(-end)
    weights = STEP * math.pi * torch.cosh(x) * s * rest
    panels = []
    for sign in (1.0, -1.0):
        angle = torch.atan2(scale, -sign * loc).clamp(min=LEAST).unsqueeze(-1)
        panels.append((sign / torch.tan(angle * rest), angle / math.pi * weights))
    t, weight = (torch.cat(parts, -1) for parts in zip(*panels, strict=True))
    return t, weight * _ratio(df, t)


def _ratio(df: float, t: Tensor) -> Tensor:
    """The density of t with so many degrees of freedom, divided by the Cauchy's."""
    if df == 1:
        return torch.ones_like(t)
    squares = t.square()
    if math.isinf(df):
        return (1 + squares) * torch.exp(-squares / 2) * math.sqrt(math.pi / 2)
    constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) + math.log(math.pi / df) / 2
    return torch.exp(constant + torch.log1p(squares) - (df + 1) / 2 * torch.log1p(squares / df))
