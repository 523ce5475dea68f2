"""A score to copy: the entropy of the network's own predictive distribution."""

import torch
from torch import Tensor, nn

from bayesnn.functional import Inputs, call, check_evaluation_mode


@torch.no_grad()
def predictive_entropy(net: nn.Module, x: Inputs) -> Tensor:
    """H[softmax(f(x))] = -sum_k p_k log p_k in nats, [batch]: larger where the network is less
    certain.

    A score needs no posterior and no training data; it never writes to the network.

    Args:
        net: a classifier in evaluation mode, outputs [batch, class] are logits.
        x: inputs of `batch` examples.

    Raises:
        ValueError: a train-mode BatchNorm or Dropout.

    Reference: name the paper whose method this is.

    >>> predictive_entropy(nn.Linear(2, 4).eval(), torch.zeros(3, 2)).shape
    torch.Size([3])
    """
    check_evaluation_mode(net, "predictive_entropy")
    probs = call(net, {}, x).softmax(-1)
    return -torch.xlogy(probs, probs).sum(-1)
