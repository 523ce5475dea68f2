"""From images to class probabilities: a network's own, those of cooled logits,
and their losses.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Predictor = Callable[[Tensor], Tensor]
"""x [batch, ...] -> class probabilities of every draw [draw, batch, class]."""


def softmax(net: nn.Module, x: Tensor) -> Tensor:
    """The network's own probabilities, as one draw."""
    return net(x).softmax(-1).unsqueeze(0)


def cooled(predictor: Predictor, temperature: float, x: Tensor) -> Tensor:
    """Of logits / temperature."""
    return (predictor(x).log() / temperature).softmax(-1)


@torch.no_grad()
def log_losses(predictor: Predictor, x: Tensor, y: Tensor) -> Tensor:
    """-log p(y_i) in nats, [batch]."""
    return -predictor(x).mean(0)[torch.arange(len(y)), y].double().clamp(min=1e-30).log()
