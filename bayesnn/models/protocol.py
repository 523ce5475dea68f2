"""What every model offers, so that prediction, Laplace, ArviZ and plots know only this."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from torch import Size, Tensor

from bayesnn.functional import Inputs
from bayesnn.likelihoods import Likelihood

Draws: TypeAlias = Mapping[str, Tensor]
"""Draws of global sites: {site name: [draw, *event]}."""


class Model(Protocol):
    """A Pyro model of y given x: `sites -> outputs -> y`.

    Attributes:
        likelihood: outputs -> distribution of y.
        size: how many examples the training data have, by which minibatches are scaled; None = each call is all data.
        local: names of sites with one value for each example.
        name: prefixes the model's sites and plates with `name + "."`; empty for none.
    """

    likelihood: Likelihood
    size: int | None
    local: frozenset[str]
    name: str

    @property
    def sites(self) -> Mapping[str, Size]:
        """{site: event shape} of the global sites that `outputs` needs."""
        ...

    def outputs(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """f(x; values), [batch, ...], for one value of each site: stateless and without Pyro."""
        ...

    def outputs_of_chunks(self, values: Mapping[str, Tensor], parts: Sequence[Inputs]) -> Tensor:
        """`outputs` on consecutive parts of one set of inputs, joined: one preparation of the values for all."""
        ...

    def sample(self, x: Inputs) -> Tensor:
        """Draw the sites and return the outputs; observe nothing: the component of a larger Pyro model."""
        ...

    def __call__(self, x: Inputs, y: Tensor | None = None) -> Tensor:
        """Sample, then observe y; returns the outputs. Without y the model has a latent site "y"."""
        ...
