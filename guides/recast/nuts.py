"""The No-U-Turn sampler on RECaST's two or three numbers."""

import warnings
from functools import partial

from pyro.infer import MCMC
from torch import Tensor

from bayesnn.functional import Inputs
from bayesnn.guides.recast.chains import RECaSTChains
from bayesnn.guides.recast.guide import Density, in_numbers, laplace
from bayesnn.guides.recast.slopes import slopes_of
from bayesnn.guides.recast.small_nuts import SmallNUTS
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
    """NUTS on the two or three numbers, without tracing: the source is called once, then densities alone.

    Chains start at draws of a Laplace approximation and move in its coordinates (`SmallNUTS`), one after another where
    there are no more cores than chains: with 250 targets that takes a few seconds. The result is Pyro's own `MCMC`, for
    `predictive`, `to_arviz` and its `summary()`.

    Args:
        model: of `recast.continuous`, `recast.binary` or `recast.categorical`.
        x: inputs of the source for all target data.
        y: targets [batch].
        draws: of each chain, after warming up.
        warmup: steps of each chain that adapt the step size.
        chains: how many.
        progress: Pyro's bar.

    Raises:
        ValueError: data that RECaST refuses.

    Reference: Hoffman, Gelman (2014), The No-U-Turn Sampler.
    """
    density = Density(model, x, y)
    kernel = SmallNUTS(slopes_of(density), *laplace(density), partial(in_numbers, model), model=model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*more than available_cpu")  # then one after another, as stated
        options = {"num_samples": draws, "warmup_steps": warmup, "num_chains": chains, "disable_progbar": not progress}
        run = RECaSTChains(density, kernel, **options)
        run.run()
    return run
