"""The inputs of a network in a Pyro model: whether they can be used, and which
of their axes are draws.
"""

from typing import Any

import torch
from torch import Tensor

from bayesnn.functional import Inputs
from bayesnn.functional.call import tensors
from bayesnn.handlers import SurroundingPlates, traced_before
from bayesnn.sites import sample_nodes


def check_inputs(x: Inputs) -> None:
    """Refuse inputs without tensors or examples, and values that are not finite; says where."""
    found = tensors(x)
    if not found:
        raise TypeError(f"x: a tensor, a tuple or a dict of tensors is needed, not {type(x).__name__}")
    for tensor in found:
        if tensor.dim() and not len(tensor):
            raise ValueError(f"x has no examples: its shape is {tuple(tensor.shape)}")
        # The sum first: it is finite wherever all entries are and do not overflow, at a tenth of
        # the cost.
        if tensor.dtype.is_floating_point and not tensor.sum().isfinite() and not tensor.isfinite().all():
            where = [int(i) for i in (~torch.isfinite(tensor)).nonzero()[0]]
            raise ValueError(f"x is not finite at index {where}: {tensor[tuple(where)].item()}")


def axes_of_draws(leaf: Any, plates: SurroundingPlates, event_dim: int | None) -> int:
    """How many axes on the left of an input are those of particles or draws,
    [*draw, batch, *event].

    Args:
        leaf: an input; what is no tensor has none.
        plates: those around the network's weights.
        event_dim: axes of one example, if the user says so. Otherwise an input has draws where its
            axes on the left are those of the plates, at least one axis follows the batch, and a
            site outside the network has those axes too: a batch of images may be as long as there
            are particles.

    Raises:
        ValueError: fewer axes than `event_dim` and the batch.
    """
    if not isinstance(leaf, Tensor):
        return 0
    if event_dim is not None:
        if leaf.dim() <= event_dim:
            raise ValueError(
                f"x has shape {tuple(leaf.shape)}, but event_dim={event_dim} axes of an example need that of the batch "
                "before them"
            )
        return leaf.dim() - 1 - event_dim
    lead = plates.lead
    if lead.numel() == 1 or leaf.dim() < len(lead) + 2 or leaf.shape[: len(lead)] != lead:
        return 0
    sampled = sample_nodes(dict(traced_before()))
    values = [node["value"] for name, node in sampled.items() if name not in plates.names]
    return len(lead) if any(isinstance(v, Tensor) and v.shape[: len(lead)] == lead for v in values) else 0
