"""Parts of an uncertainty, per example: noise (aleatoric), and ignorance of the
weights (epistemic).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from bayesnn.metrics._checks import Array, check_finite, check_probabilities, tensor


class Decomposition(NamedTuple):
    """total = aleatoric + epistemic, each [*batch], in nats (entropy) or
    squared target units (variance).
    """

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


def entropy(probs: Array) -> Tensor:
    """H[p] = -sum_k p_k log p_k, the uncertainty of a predictive distribution over classes.

    Of draws [draw, batch, class] this is the entropy of each draw; the *predictive* entropy is
    that of their mean, `entropy(draws.mean(0))`.

    Args:
        probs: Probabilities [*batch, class], summing to one along the last axis. Gradients flow
            through.

    Returns:
        [*batch] in nats, between 0 and log(class).

    Raises:
        ValueError: nan, or not probabilities.

    Source: Shannon, Bell System Technical Journal 27, 1948.

    Example:
        >>> import torch
        >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.6931, 0.0000])
    """
    return _entropy(_probabilities("entropy", probs, ("class",)))


def decompose_entropy(probs: Array) -> Decomposition:
    """H[mean_s p_s] = mean_s H[p_s] + I: total entropy = aleatoric part + mutual information of
    label and weights.

    Args:
        probs: Draws of probabilities [draw, *batch, class], with at least one batch axis.
            Gradients flow through.

    Returns:
        `total`, `aleatoric` and `epistemic`, each [*batch] in nats. With S draws the epistemic
        part is at most log S, and biased low by about sum_k var_s(p_sk) / (2 S mean_s(p_sk)): few
        draws hide ignorance.

    Raises:
        ValueError: nan, no draw axis, or not probabilities.

    Source: Depeweg et al., ICML 2018, arXiv:1710.07283, eq. 2; Houlsby et al., arXiv:1112.5745
    (BALD).

    Example:
        >>> import torch
        >>> agree, disagree = [0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]]
        >>> parts = decompose_entropy(torch.tensor([[agree, disagree[0]], [agree, disagree[1]]]))
        >>> parts.aleatoric, parts.epistemic
        (tensor([0.6931, 0.0000]), tensor([0.0000, 0.6931]))
    """
    draws = _probabilities("decompose_entropy", probs, ("draw", "batch", "class"))
    total, aleatoric = _entropy(draws.mean(0)), _entropy(draws).mean(0)
    # Jensen's inequality holds exactly for the plug-in values too; below zero is rounding.
    return Decomposition(total, aleatoric, (total - aleatoric).clamp(min=0))


def mutual_information(probs: Array) -> Tensor:
    """I[y; w] = H[mean_s p_s] - mean_s H[p_s]: what a label would teach about the weights (BALD),
    the epistemic part.

    Args:
        probs: Draws of probabilities [draw, *batch, class].

    Returns:
        [*batch] in nats, between 0 and the smaller of log(class) and log(draw); see
        `decompose_entropy` for its bias with few draws.

    Raises:
        ValueError: nan, no draw axis, or not probabilities.

    Source: Houlsby et al., arXiv:1112.5745.

    Example:
        >>> import torch
        >>> mutual_information(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))  # two draws that contradict each other
        tensor([0.6931])
    """
    return decompose_entropy(probs).epistemic


def decompose_variance(means: Array, variances: Array) -> Decomposition:
    """Var[y] = mean_s v_s + var_s(m_s): the law of total variance for the uniform mixture of the
    draws.

    `var_s` divides by S, not S - 1, so that `total` is exactly the variance of the mixture over
    these draws.

    Args:
        means: E[y | x, w_s] for every draw, [draw, *batch], in target units.
        variances: Var[y | x, w_s], in squared target units, of a shape that broadcasts to that of
            `means`.

    Returns:
        `total`, `aleatoric` and `epistemic`, each [*batch] in squared target units.

    Raises:
        ValueError: nan, no draw axis, shapes that do not broadcast, or a negative variance.

    Source: Depeweg et al., ICML 2018, arXiv:1710.07283, eq. 4.

    Example:
        >>> import torch
        >>> decompose_variance(torch.tensor([[0.0], [2.0]]), torch.tensor(0.25)).total
        tensor([1.2500])
    """
    m = _floating("decompose_variance", "means", means)
    v = _floating("decompose_variance", "variances", variances)
    if m.ndim < 2:
        raise ValueError(
            f"decompose_variance: means {list(m.shape)} have no draw axis; give [draw, batch] (one draw: means[None])."
        )
    if bool((v < 0).any()):
        raise ValueError(
            f"decompose_variance: variances go down to {float(v.min()):.4g}; give variances, not log variances."
        )
    try:
        v = v.broadcast_to(m.shape)
    except RuntimeError:
        raise ValueError(
            f"decompose_variance: variances {list(v.shape)} do not broadcast to means {list(m.shape)} [draw, batch]."
        ) from None
    aleatoric, epistemic = v.mean(0), m.var(0, correction=0)
    return Decomposition(aleatoric + epistemic, aleatoric, epistemic)


def _entropy(probs: Tensor) -> Tensor:
    # Probabilities of a user may be -1e-9 through rounding, where special.entr is -inf.
    return torch.special.entr(probs.clamp(min=0)).sum(-1)


def _probabilities(where: str, value: Array, axes: tuple[str, ...]) -> Tensor:
    """Checked probabilities with at least these axes."""
    probs = _floating(where, "probs", value)
    if probs.ndim < len(axes):
        hint = "; the draw axis comes first (one draw: probs[None])" if "draw" in axes else ""
        raise ValueError(f"{where}: probs of shape {list(probs.shape)} must have the axes [{', '.join(axes)}]{hint}.")
    check_probabilities(where, "probs", probs)
    return probs


def _floating(where: str, name: str, value: Array) -> Tensor:
    """Not detached, dtype kept: these are per-example quantities that a user may differentiate."""
    result = tensor(value)
    if not result.is_floating_point():
        result = result.to(torch.get_default_dtype())
    if result.numel() == 0:
        raise ValueError(f"{where}: {name} of shape {list(result.shape)} is empty; give at least one example.")
    check_finite(where, name, result)
    return result
