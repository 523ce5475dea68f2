"""PSIS k-hat of an approximation. NumPy and ArviZ only: neither torch nor the
rest of the package.
"""

from typing import Any

import numpy as np

FEWEST = 30
"""Draws below which the tail that the Pareto distribution is fitted to has too few points."""


def khat(log_p: Any, log_q: Any = None) -> np.ndarray:
    """Tail index k of the importance weights p(w, y) / q(w), w ~ q: whether q can stand for the
    posterior.

    Below 0.5: good; below 0.7: usable, and the draws can be reweighted to the posterior; above:
    they cannot. Weights of a whole network reach 0.7 hardly ever, those of a last layer or a small
    subset do; compare guides by it.

    Args:
        log_p: log joint densities log p(w_s, y) in nats [..., draw], or what `to_arviz` made of a
            guide, which holds both.
        log_q: log densities log q(w_s) of the guide in nats, of the same shape.

    Returns:
        k-hat, [...] (a number as an array without axes; [chain] from a tree, whose chains are
        guides of their own); -inf where the weights are equal up to rounding, so that the guide is
        the posterior.

    Raises:
        ValueError: densities that are not finite, of different shapes, or of fewer than 30 draws;
            a tree without `log_q`.

    Reference: Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling;
    Yao, Vehtari, Simpson, Gelman (2018), Yes, but did it work?

    >>> w = np.linspace(-3, 3, 1000)
    >>> float(khat(-0.5 * w**2, -0.5 * w**2))
    -inf
    """
    if log_q is None:
        log_p, log_q = _of_tree(log_p)
    p, q = np.asarray(log_p, dtype=float), np.asarray(log_q, dtype=float)
    if p.shape != q.shape or not p.ndim:
        raise ValueError(f"khat: log_p and log_q need one shape [..., draw], they have {p.shape} and {q.shape}")
    if p.shape[-1] < FEWEST:
        raise ValueError(f"khat: {p.shape[-1]} draws are too few for a tail; draw at least {FEWEST}, better 1,000")
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise ValueError("khat: log densities must be finite; does the guide draw outside of the prior's support?")
    weights = p - q
    # The densities come in single precision: what is below it in the weights is no tail.
    rounding = 10 * np.finfo(np.float32).eps * np.abs(p).max(-1)
    equal = np.ptp(weights, axis=-1) <= rounding
    found = [
        -np.inf if same else pareto_smoothed(row)[1] for same, row in zip(equal.ravel(), _rows(weights), strict=True)
    ]
    return np.asarray(found).reshape(equal.shape)


def _of_tree(tree: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        stats = tree["sample_stats"]
        return np.asarray(stats["lp"]), np.asarray(stats["log_q"])
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(
            "khat: no sample_stats with lp and log_q; give khat(log_p, log_q) or what to_arviz made of a guide (draws "
            "of MCMC and point estimates have no log_q)"
        ) from None


def _rows(weights: np.ndarray) -> np.ndarray:
    return weights.reshape(-1, weights.shape[-1])


def pareto_smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """(log weights that sum to 1, tail index k) of importance weights whose largest are replaced
    by Pareto quantiles.

    Args:
        log_weights: log p - log q of draws from q in nats, [draw], up to a constant.

    Raises:
        ImportError: ArviZ, whose smoothing this is, cannot be imported.

    Reference: Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling.

    >>> log_weights, k = pareto_smoothed(np.linspace(-1, 0, 100))
    >>> round(float(np.exp(log_weights).sum()), 6), k < 0.5
    (1.0, True)
    """
    try:
        import arviz
    except ImportError as error:
        raise ImportError(f"pareto_smoothed: ArviZ cannot be imported ({error}); pip install 'bayesnn[all]'") from error
    if hasattr(arviz, "psislw"):  # 0.x
        smoothed, k = arviz.psislw(np.array(log_weights))
        return np.asarray(smoothed), float(k)
    import xarray

    # 1.x takes the negated log weights, which for `loo` are log likelihoods.
    smoothed, k = xarray.DataArray(-log_weights, dims="draw").azstats.psislw(dim="draw")
    return np.asarray(smoothed), float(k)
