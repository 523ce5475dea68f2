"""One temperature for all logits: the candidates, and how networks of a
cross-validation judge them.
"""

import torch
from torch import Tensor, nn

from examples.studies.common.choice import Fold

TEMPERATURES = torch.linspace(0.5, 5.0, 91)


def cooled(net: nn.Module, temperature: float, x: Tensor) -> Tensor:
    """Class probabilities of logits / temperature, as one draw."""
    return (net(x) / temperature).softmax(-1).unsqueeze(0)


@torch.no_grad()
def held_out_loss(held: list[Fold], temperature: float = 1.0) -> float:
    """NLL in nats, summed over the images that the folds held out."""
    losses = [
        nn.functional.cross_entropy(fold.net(x) / temperature, y, reduction="sum")
        for fold in held
        for x, y in [fold.validation.tensors]
    ]
    return float(torch.stack(losses).sum())
