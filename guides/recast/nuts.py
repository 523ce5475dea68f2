"""The No-U-Turn sampler on RECaST's two or three numbers."""

import warnings
from functools import partial
from typing import Any

from pyro.infer import MCMC
from pyro.infer.mcmc.util import select_samples
from torch import Tensor
from typing_extensions import override

from bayesnn.functional import Inputs
from bayesnn.guides.recast.guide import Density, in_numbers, laplace
from bayesnn.guides.recast.slopes import slopes_of
from bayesnn.guides.recast.small_nuts import SmallNUTS
from bayesnn.models.recast import RECaST, with_source


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
    """NUTS on the two or three numbers, without tracing: the source is called once, then densities
    alone.

    Chains start at draws of a Laplace approximation and move in its coordinates (`SmallNUTS`), one
    after another where there are no more cores than chains: with 250 targets that takes a few
    seconds. The result is Pyro's own `MCMC`, for `predictive`, `to_arviz` and its `summary()`.

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
        # then one after another, as stated
        warnings.filterwarnings("ignore", message=".*more than available_cpu")
        options = {"num_samples": draws, "warmup_steps": warmup, "num_chains": chains, "disable_progbar": not progress}
        run = RECaSTChains(density, kernel, **options)
        run.run()
    return run


class RECaSTChains(MCMC):
    """Pyro's chains of the numbers, their source summed over; `get_samples` has an exact draw of
    its index for each.
    """

    def __init__(self, density: Density, kernel: Any, **options: Any) -> None:
        super().__init__(kernel, **options)
        self.density = density
        self._index: dict[str, Tensor] = {}

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Run the chains, then draw the indices."""
        super().run(*args, **kwargs)
        numbers = super().get_samples()
        density = self.density
        drawn = with_source(density.model, numbers, density.f, density.y)
        self._index = {site: value for site, value in drawn.items() if site not in numbers}

    @override
    def get_samples(self, num_samples: int | None = None, group_by_chain: bool = False) -> dict[str, Tensor]:
        grouped = super().get_samples(group_by_chain=True)
        index = {site: value.reshape(self.num_chains, -1) for site, value in self._index.items()}
        return select_samples({**grouped, **index}, num_samples, group_by_chain)
