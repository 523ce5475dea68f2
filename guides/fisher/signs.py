"""Random signs."""

import torch
from torch import Tensor


def random_signs(like: Tensor) -> Tensor:
    """+1 or -1 with probability 1/2 each, independent (Rademacher variables)."""
    return torch.empty_like(like, requires_grad=False).bernoulli_(0.5).mul_(2).sub_(1)
