"""Random cotangents, and when two sums of derivatives are the same: what checks
against autograd are made of.
"""

import torch
from torch import Tensor


def seeded_normal(like: Tensor) -> Tensor:
    """Normal numbers of a tensor's shape, the same at every call; torch's
    random numbers are left alone.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape, generator=generator, dtype=torch.double).to(like)


def agree(ours: Tensor, true: Tensor, bound: Tensor | float) -> bool:
    """Whether two sums are the same but for rounding, their terms' sizes being at most `bound`."""
    if not true.numel():
        return True
    eps = torch.finfo(true.dtype).eps
    # TF32
    relative = 1e-6 if true.dtype == torch.double else 1e-3 if true.device.type == "cpu" else 1e-2
    return bool((ours - true).abs().max() <= relative * true.abs().max() + 10 * eps * bound + 1e-30)
