"""A separate learning rate for the variances of a guide."""

from collections.abc import Callable

from torch import nn

SUFFIXES = ("scale", "log_scale", "scales", "scale_tril", "scale_unconstrained", "cov_factor", "cov_diag", "rho", "raw")


def faster_variances(lr: float, multiplier: float = 10.0) -> Callable[[str, nn.Parameter], dict[str, float]]:
    """Groups for `fit(groups=...)`: a learning rate `multiplier` times as large for the variances
    of a guide.

    Variances learn slowly under the rate that suits means, and mean-field results are often those
    of variances that have not converged. Parameters of variances are known by the end of their
    names: `scale`, `log_scale`, `scale_tril`, `cov_factor`, `raw` of `MultiplicativeNoise` and the
    like. Scales of the model itself (a learned noise) keep the ordinary rate.

    Args:
        lr: the ordinary learning rate.
        multiplier: at least 1.

    Raises:
        ValueError: a rate that is not positive, or a multiplier below 1.

    >>> import torch
    >>> groups = faster_variances(1e-3, multiplier=20)
    >>> groups("guide.log_scale", nn.Parameter(torch.zeros(1))), groups("guide.loc", nn.Parameter(torch.zeros(1)))
    ({'lr': 0.02}, {})
    """
    if not lr > 0:
        raise ValueError(f"faster_variances: the learning rate must be positive, not {lr}")
    if not multiplier >= 1:
        raise ValueError(f"faster_variances: the multiplier must be at least 1, not {multiplier}")

    def groups(name: str, parameter: nn.Parameter) -> dict[str, float]:
        parts = name.split(".")
        of_guide = "model" not in parts[:-1]
        return {"lr": lr * multiplier} if of_guide and parts[-1].endswith(SUFFIXES) else {}

    return groups
