"""The No-U-Turn sampler on RECaST's two or three numbers."""

import warnings

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from bayesnn.functional import Inputs
from bayesnn.guides.recast import Density, in_numbers, laplace
from bayesnn.models.recast import RECaST


def recast_nuts(
    model: RECaST,
    x: Inputs,
    y: Tensor,
    *,
    draws: int = 1000,
    warmup: int = 500,
    chains: int = 4,
    progress: bool = True,
) -> MCMC:
    """Pyro's NUTS on the two or three numbers, without tracing: the source is called once, then densities alone.

    Chains start at draws of a Laplace approximation, with a dense mass matrix, and run at once where there are more
    cores than chains. The result is Pyro's own `MCMC`, for `predictive`, `to_arviz` and its `summary()`.

    Args:
        model: of `recast.continuous` or `recast.binary`.
        x: inputs of the source for all target data.
        y: targets [batch].
        draws: of each chain, after warming up.
        warmup: steps of each chain that adapt step size and mass matrix.
        chains: how many.
        progress: Pyro's bar.

    Raises:
        ValueError: data that RECaST refuses.

    Reference: Hoffman, Gelman (2014), The No-U-Turn Sampler.
    """
    density = Density(model, x, y)
    mode, root = laplace(density)
    u = mode + torch.randn(chains, len(mode), dtype=torch.double) @ root.mT
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*more than available_cpu")  # then one after another, as stated
        run = MCMC(
            NUTS(potential_fn=_Potential(density), full_mass=True),
            num_samples=draws,
            warmup_steps=warmup,
            num_chains=chains,
            initial_params=in_numbers(model, u if chains > 1 else u[0]),
            disable_progbar=not progress,
        )
        run.run()
    return run


class _Potential:
    """-log p(values, y); a class, since chains in processes pickle it."""

    def __init__(self, density: Density) -> None:
        self.density = density

    def __call__(self, values: dict[str, Tensor]) -> Tensor:
        return -self.density.model.log_joint(values, self.density.f, self.density.y)
