"""Pyro's `MCMC` of RECaST's numbers, with a draw of the uncertain source beside each."""

from typing import Any

from pyro.infer import MCMC
from pyro.infer.mcmc.util import select_samples
from torch import Tensor

from bayesnn.guides.recast.guide import Density
from bayesnn.models.recast import with_source


class RECaSTChains(MCMC):
    """Chains of the numbers, their source summed over; `get_samples` has an exact draw of its index for each."""

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

    def get_samples(self, num_samples: int | None = None, group_by_chain: bool = False) -> dict[str, Tensor]:
        """As Pyro's."""
        grouped = super().get_samples(group_by_chain=True)
        index = {site: value.reshape(self.num_chains, -1) for site, value in self._index.items()}
        return select_samples({**grouped, **index}, num_samples, group_by_chain)
