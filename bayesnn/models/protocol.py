"""What models, guides and draws offer, so that prediction, Laplace, ArviZ and
plots know only this.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

from pyro.distributions import TorchDistribution
from torch import Size, Tensor

from bayesnn.functional import Inputs
from bayesnn.likelihoods import Likelihood

Draws: TypeAlias = Mapping[str, Tensor]
"""Draws of global sites: {site name: [draw, *event]}."""


class Model(Protocol):
    """A Pyro model of y given x: `sites -> outputs -> y`.

    Attributes:
        likelihood: outputs -> distribution of y.
        size: how many examples the training data have, by which minibatches are scaled;
            None = each call is all data.
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
        """`outputs` on consecutive parts of one set of inputs, joined: one
        preparation of the values for all.
        """
        ...

    def sample(self, x: Inputs) -> Tensor:
        """Draw the sites and return the outputs; observe nothing: the component
        of a larger Pyro model.
        """
        ...

    def __call__(self, x: Inputs, y: Tensor | None = None) -> Tensor:
        """Sample, then observe y; returns the outputs. Without y the model has
        a latent site "y".
        """
        ...


@runtime_checkable
class OfModel(Protocol):
    """A posterior that knows its model: a guide, the kernel of an MCMC run, draws that keep it.

    Such a posterior needs no `model=` in `predict`, `predictive`, `draw` and `to_arviz`, and is
    refused with a model that differs from its own.
    """

    @property
    def model(self) -> Any:
        """The model that this is a posterior of."""
        ...


@runtime_checkable
class Guide(OfModel, Protocol):
    """A Pyro guide that knows its model, as all of `bayesnn.guides` do, and Pyro's own.

    `model` is a property over a tuple: a registered module would have its parameters trained
    twice. Any other function that samples the model's sites is a guide too, but every use of it
    needs `model=`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Sample every latent site of the model, under the model's names."""
        ...


@runtime_checkable
class LinearisedGuide(Protocol):
    """What the linearised predictive needs of a guide: its outputs in closed form."""

    def output_distribution(self, x: Inputs) -> TorchDistribution:
        """A normal distribution of the outputs at each x by itself, [batch] x [out]."""
        ...


class FlatGuide(Guide, Protocol):
    """A guide with a mean of its model's weights as one vector, in the order of the model's sites.

    Attributes:
        loc: the mean, [param].
    """

    loc: Tensor


def is_model(value: object) -> TypeGuard[Model]:
    """Whether it offers what `Model` asks for.

    By name, where `isinstance` of Python 3.12 finds neither the sub-modules (a likelihood) nor the
    parameters of an `nn.Module`.
    """
    return all(hasattr(value, name) for name in ("likelihood", "size", "local", "name", "sites", "outputs"))


def is_flat_guide(value: object) -> TypeGuard[FlatGuide]:
    """Whether it is a guide of a model of one network, `net`, whose `loc` has
    one number for every random weight.
    """
    if not (isinstance(value, Guide) and is_model(value.model) and hasattr(value.model, "net")):
        return False
    loc = getattr(value, "loc", None)  # a parameter or a buffer, as in `is_model`
    return isinstance(loc, Tensor) and loc.numel() == sum(shape.numel() for shape in value.model.sites.values())
