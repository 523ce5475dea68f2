"""Scores of predicted class probabilities: negative log likelihood, Brier score, accuracy."""

import math

import torch

from bayesnn.metrics._checks import Array, check_axes, check_level, probabilities_and_labels, reals
from bayesnn.metrics.estimate import Estimate, mean_estimate, share_estimate


def nll(probs: Array, labels: Array, *, level: float = 0.95) -> Estimate:
    """NLL = -mean_i log p_i[y_i], a strictly proper score.

    No probability is clipped: one that is zero for the label that came makes the value inf, as it
    should. Where float32 underflows, give log probabilities to `log_score` instead.

    Args:
        probs: Mean predictive probabilities [batch, class].
        labels: Class numbers [batch].
        level: Probability of the interval.

    Returns:
        Mean over examples in nats, with the standard error of the mean.

    Raises:
        TypeError: Labels that are not integers.
        ValueError: nan, shapes that do not fit, not probabilities, or a label outside the classes.

    Source: Good, J. Roy. Stat. Soc. B 14, 1952; Gneiting and Raftery, J. Am. Stat. Assoc.
    102, 2007.

    Example:
        >>> import torch
        >>> print(nll(torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]), torch.tensor([0, 1, 0])))
        0.36 ± 0.17
    """
    check_level("nll", level)
    p, y = probabilities_and_labels("nll", probs, labels)
    chosen = p.gather(1, y[:, None]).squeeze(1).clamp(min=0)
    return mean_estimate(-chosen.log(), level=level)


def log_score(log_prob: Array, *, level: float = 0.95) -> Estimate:
    """-mean_i log mean_s p_s(y_i): the NLL from pointwise log likelihoods, for any kind of target.

    Args:
        log_prob: log p(y_i | x_i), [batch], or log p(y_i | x_i, w_s) of every draw, [draw, batch];
            in nats. -inf is allowed, +inf and nan are not.
        level: Probability of the interval.

    Returns:
        Mean over examples in nats. For densities it changes by log c when the targets are rescaled
        by c.

    Raises:
        ValueError: nan or +inf, or other axes.

    Source: Gelman, Hwang and Vehtari, Statistics and Computing 24, 2014 (the log pointwise
    predictive density).

    Example:
        >>> import torch
        >>> round(float(log_score(torch.tensor([[0.5], [1.0]]).log())), 4)  # two draws give 0.5 and 1 to the one target
        0.2877
    """
    check_level("log_score", level)
    values = reals("log_score", "log_prob", log_prob, infinite=True)
    if bool((values == math.inf).any()):
        raise ValueError("log_score: log_prob holds +inf, a density without bound; check the predicted scale.")
    if values.ndim != 1:
        check_axes("log_score", "log_prob", values, "draw batch")
        values = values.logsumexp(0) - math.log(len(values))
    return mean_estimate(-values, level=level)


def brier(probs: Array, labels: Array, *, level: float = 0.95) -> Estimate:
    """Brier = mean_i sum_k (p_ik - 1[y_i = k])^2, between 0 and 2, a strictly proper score.

    The sum runs over all classes, as in Brier's paper; for two classes this is twice the one-class
    form that some libraries print (scikit-learn's `scale_by_half`).

    Args:
        probs: Mean predictive probabilities [batch, class].
        labels: Class numbers [batch].
        level: Probability of the interval.

    Returns:
        Mean over examples (no unit), with the standard error of the mean. `brier_decomposition`
        splits it.

    Raises:
        TypeError: Labels that are not integers.
        ValueError: nan, shapes that do not fit, not probabilities, or a label outside the classes.

    Source: Brier, Monthly Weather Review 78, 1950.

    Example:
        >>> import torch
        >>> float(brier(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 1])))
        0.25
    """
    check_level("brier", level)
    p, y = probabilities_and_labels("brier", probs, labels)
    target = torch.nn.functional.one_hot(y, p.shape[1])
    return mean_estimate((p - target).square().sum(1), level=level)


def accuracy(probs: Array, labels: Array, *, level: float = 0.95) -> Estimate:
    """Accuracy = mean_i 1[argmax_k p_ik = y_i]; of tied classes the first is predicted.

    Args:
        probs: Mean predictive probabilities [batch, class].
        labels: Class numbers [batch].
        level: Probability of the interval.

    Returns:
        The share of right predictions, its binomial standard error and Wilson's interval.

    Raises:
        TypeError: Labels that are not integers.
        ValueError: nan, shapes that do not fit, not probabilities, or a label outside the classes.

    Source: Wilson, J. Am. Stat. Assoc. 22, 1927 (the interval).

    Example:
        >>> import torch
        >>> float(accuracy(torch.tensor([[0.6, 0.4], [0.7, 0.3]]), torch.tensor([0, 1])))
        0.5
    """
    check_level("accuracy", level)
    p, y = probabilities_and_labels("accuracy", probs, labels)
    return share_estimate(p.argmax(1) == y, level=level)
