"""Apply one function to every draw of its values: by a loop, or vectorised
where that is faster.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bayesnn.functional.transforms import transformable

VMAP_LIMIT = 500_000
"""Largest (values per draw) x (examples) for which vmap beat a loop on a CPU: see
examples/benchmarks/vmap_rule.py.
"""


def map_draws(
    function: Callable[[dict[str, Tensor]], Tensor], values: Mapping[str, Tensor], *, vectorised: bool
) -> Tensor:
    """[f(values[0]), f(values[1]), ...]: `function` at every draw.

    Args:
        function: outputs for one draw of the values.
        values: {name: [draw, *event]}.
        vectorised: one call under `torch.vmap` instead of a loop. Layers without a batching rule
            (LSTM, GRU) and operations that write in place make it fall back to the loop.

    Returns:
        [draw, *outputs].
    """
    device = next(iter(values.values())).device
    if vectorised:
        try:
            with transformable(device):
                return torch.vmap(function, randomness="different")(dict(values))
        except (RuntimeError, NotImplementedError) as error:
            if not _lacks_batching_rule(error):
                raise
    count = len(next(iter(values.values())))
    return torch.stack([function({name: value[i] for name, value in values.items()}) for i in range(count)])


def worth_vectorising(values_per_draw: int, examples: int, device: torch.device) -> bool:
    """The one rule for vmap over draws: small work on a CPU, where a loop pays
    more for calls than for arithmetic.
    """
    return device.type != "cpu" or values_per_draw * examples <= VMAP_LIMIT


def _lacks_batching_rule(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, NotImplementedError) or any(
        phrase in text for phrase in ("batching rule", "vmap", "data_ptr", "functorch")
    )
