"""The share of pairs of draws of a classifier that give different labels."""

from torch import Tensor
from torch.nn.functional import one_hot

from bayesnn.metrics._checks import Array, check_count, check_probabilities, reals


def disagreement(probs: Array) -> Tensor:
    """mean_{s<t} [argmax p_s != argmax p_t]: the share of pairs of draws (members) whose labels
    differ, per example.

    Its mean over examples is the diversity of an ensemble. Two independent draws of a classifier
    that is right on a share a of the examples can disagree on at most 2 (1 - a) of them.

    Args:
        probs: Draws of probabilities [draw, batch, class], at least two.

    Returns:
        [batch], between 0 and 1 (at most S / (2 (S - 1)) for two classes and S draws).

    Raises:
        ValueError: nan, not probabilities, or fewer than two draws.

    Source: Fort, Hu and Lakshminarayanan, Deep ensembles: a loss landscape perspective,
    arXiv:1912.02757.

    Example:
        >>> import torch
        >>> a, b = [0.9, 0.1], [0.2, 0.8]
        >>> disagreement(torch.tensor([[a, a], [a, b], [a, b]]))
        tensor([0.0000, 0.6667], dtype=torch.float64)
    """
    draws = reals("disagreement", "probs", probs, "draw batch class")
    check_probabilities("disagreement", "probs", draws)
    count = len(draws)
    check_count("disagreement", "the number of draws", count, 2)
    votes = one_hot(draws.argmax(-1), draws.shape[-1]).sum(0)  # [batch, class]
    agreeing = (votes * (votes - 1)).sum(-1).double()
    return 1 - agreeing / (count * (count - 1))
