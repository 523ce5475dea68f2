"""Pareto smoothing of importance weights: ArviZ's, of either generation, on tensors."""

import torch
from torch import Tensor


def pareto_smoothed(log_weights: Tensor) -> tuple[Tensor, float]:
    """(log weights that sum to 1, tail index k) of importance weights whose largest are replaced by Pareto quantiles.

    Args:
        log_weights: log p - log q of draws from q in nats, [draw], up to a constant.

    Returns:
        log weights [draw], double, and k: below 0.7 they can be used.

    Raises:
        ImportError: ArviZ, whose smoothing this is, cannot be imported.

    Reference: Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling.

    >>> log_weights, k = pareto_smoothed(torch.linspace(-1, 0, 100))
    >>> round(log_weights.exp().sum().item(), 6), k < 0.5
    (1.0, True)
    """
    weights = log_weights.detach().cpu().double().numpy()
    try:
        import arviz
    except ImportError as error:
        raise ImportError(f"pareto_smoothed: ArviZ cannot be imported ({error}); pip install 'bayesnn[all]'") from error
    if hasattr(arviz, "psislw"):  # 0.x
        smoothed, k = arviz.psislw(weights)
        return torch.as_tensor(smoothed), float(k)
    import xarray

    # 1.x takes the negated log weights, which for `loo` are log likelihoods.
    smoothed, k = xarray.DataArray(-weights, dims="draw").azstats.psislw(dim="draw")
    return torch.as_tensor(smoothed.values), float(k)
