"""Scores of predictions of a number: RMSE and CRPS."""

import math

import torch

from bayesnn.metrics._checks import Array, check_axes, check_level, check_same_batch, reals
from bayesnn.metrics.estimate import Estimate, mean_estimate


def rmse(predictions: Array, targets: Array, *, level: float = 0.95) -> Estimate:
    """RMSE = sqrt(mean_i (m_i - y_i)^2).

    Args:
        predictions: Point predictions [batch], e.g. the predictive mean.
        targets: [batch].
        level: Probability of the interval.

    Returns:
        In target units. The interval is the square root of the normal interval of the mean squared
        error, the standard error its delta-method form se(MSE) / (2 RMSE).

    Raises:
        ValueError: nan, or shapes that do not fit.

    Source: the delta method, e.g. van der Vaart, Asymptotic Statistics, 1998, chapter 3.

    Example:
        >>> import torch
        >>> round(float(rmse([1.0, 2.0], [4.0, 6.0])), 4)
        3.5355
    """
    check_level("rmse", level)
    m, y = reals("rmse", "predictions", predictions), reals("rmse", "targets", targets, "batch")
    if m.ndim == 2 and m.shape[1] == len(y):
        raise ValueError(
            f"rmse: predictions {list(m.shape)} must be [batch]; of draws, judge their mean: predictions.mean(0)."
        )
    check_axes("rmse", "predictions", m, "batch")
    check_same_batch("rmse", predictions=m, targets=y.to(m.device))
    mse = mean_estimate((m - y.to(m.device)).square(), level=level)
    root = math.sqrt(mse.value)
    return Estimate(
        value=root,
        se=mse.se / (2 * root) if root > 0 else mse.se,
        low=math.sqrt(max(mse.low, 0.0)) if not math.isnan(mse.low) else math.nan,
        high=math.sqrt(mse.high),
        n=mse.n,
        level=level,
        method="normal, of the mean squared error",
    )


def crps(draws: Array, targets: Array, *, level: float = 0.95) -> Estimate:
    """CRPS = mean_i { E|Y - y_i| - E|Y - Y'| / 2 }, Y and Y' independent predictions: a strictly
    proper score.

    The second expectation runs over *different* draws ("fair"), so that the value does not depend
    on how many draws there are, in expectation. (A standard energy form counts a draw against
    itself and is too large by E|Y - Y'| / 2S.)

    Args:
        draws: Draws of the *outcome* y given x, [draw, batch], at least two: posterior predictive
            draws with the noise in them. Draws of its mean alone would be judged over-confident.
        targets: [batch].
        level: Probability of the interval.

    Returns:
        Mean over examples in target units, with the standard error of the mean. For one point
        prediction it would be the mean absolute error.

    Raises:
        ImportError: scoringrules is not installed.
        ValueError: nan, shapes that do not fit, or a single draw.

    Source: Gneiting and Raftery, J. Am. Stat. Assoc. 102, 2007; Ferro, Q. J. R. Meteorol. Soc.
    140, 2014 (fair).

    Example:
        >>> import torch
        >>> float(crps(torch.tensor([[0.0], [2.0]]), torch.tensor([0.0])))  # 1 - 2 / 2
        0.0
    """
    check_level("crps", level)
    y = reals("crps", "targets", targets, "batch")
    samples = reals("crps", "draws", draws, "draw batch")
    check_same_batch("crps", draws=samples, targets=y)
    if len(samples) < 2:
        raise ValueError("crps: one draw has no spread; give at least two draws, or judge a point with rmse.")
    try:
        import scoringrules
    except ImportError as error:
        raise ImportError("crps needs scoringrules: pip install scoringrules (or bayesnn[all]).") from error
    # The estimators "pwm" and "fair" are equal algebraically, but "fair" allocates
    # draw x draw x batch numbers. Centring first keeps its sums from cancelling when targets are
    # far from zero.
    centred = (samples - y.to(samples.device)).T.cpu().numpy()
    values = scoringrules.crps_ensemble(0.0 * centred[:, 0], centred, estimator="pwm", backend="numpy")
    return mean_estimate(torch.as_tensor(values), level=level)
