"""The context that a network needs so that `torch.vmap` and derivatives through it work."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bayesnn.functional.holding import alone


@contextmanager
def transformable(device: torch.device) -> Iterator[None]:
    """Inside, networks can be vectorised and differentiated by `torch.func`, by one thread at a
    time; torch's switches are put back after.

    The fused inference kernel of `nn.TransformerEncoderLayer` has no derivative, and torch takes
    it whenever no input seems to need one, as under `vmap`. The CPU kernel of attention has no
    batching rule: the plain operations do. Any other operation without such a rule is looped over
    by torch itself, which is right and needs no warning.
    """
    with alone():
        fused = torch.backends.mha.get_fastpath_enabled()
        plain = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with plain, warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
