"""What a method gives: a way to predict, and what it cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from examples.studies.common.predictors import Predictor
from examples.studies.common.training import Setting

EPOCH = dict[str, Any]
"""After one pass over the images: {"disagreement": share of pairs of members,
"between", "within", "kl": [layer]}.
"""

NONE = Setting(math.inf)
"""No weight decay, for all methods alike."""


@dataclass(frozen=True)
class Trained:
    """A predictor with its numbers of parameters, its CPU seconds of training, and what was looked
    at on the way.

    Attributes:
        chosen: what validation chose, to print.
        history: one entry an epoch.
    """

    predictor: Predictor
    parameters: int
    seconds: float
    chosen: str = ""
    history: list[EPOCH] = field(default_factory=list)


def size(net: nn.Module) -> int:
    """Trained numbers."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def root_mean_square(values: Sequence[float]) -> float:
    """Over layers."""
    return float(Tensor(values).double().square().mean().sqrt())


@torch.no_grad()
def probabilities(nets: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Of every network, [member, batch, class]."""
    return torch.stack([net(x).softmax(-1) for net in nets])
