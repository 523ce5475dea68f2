"""A model to copy: a straight line, with everything that the `Model` protocol asks for."""

from collections.abc import Mapping, Sequence

import pyro
import torch
from pyro import distributions as dist
from torch import Size, Tensor, nn

from bayesnn.functional import Inputs
from bayesnn.likelihoods import Likelihood
from bayesnn.models import observe


class Line(nn.Module):
    """y_i ~ likelihood(slope x_i), slope ~ N(0, 1).

    A model is an `nn.Module` that owns the learned generative parameters (here those of the
    likelihood), and never a user's network.

    Args:
        likelihood: outputs [*draw, batch, 1] -> distribution of y.
        size: examples in the training data; None = every call gets all of them.
        name: prefixes sites and plate.

    Shapes: x [batch, 1] -> outputs [batch, 1].

    >>> from bayesnn import likelihoods
    >>> Line(likelihoods.normal(0.1))(torch.ones(4, 1), torch.ones(4, 1)).shape
    torch.Size([4, 1])
    """

    local: frozenset[str] = frozenset()  # sites with one value for each example

    def __init__(self, likelihood: Likelihood, *, size: int | None = None, name: str = "") -> None:
        super().__init__()
        self.likelihood, self.size, self.name = likelihood, size, name
        self._slope = f"{name}.slope" if name else "slope"

    @property
    def sites(self) -> Mapping[str, Size]:
        """{site: event shape} of the global sites that `outputs` needs."""
        return {self._slope: Size()}

    def outputs(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """f(x; values): stateless, without Pyro."""
        assert isinstance(x, Tensor)
        return values[self._slope] * x

    def outputs_of_chunks(self, values: Mapping[str, Tensor], parts: Sequence[Inputs]) -> Tensor:
        """`outputs` on consecutive parts of one set of inputs, joined."""
        return torch.cat([self.outputs(values, part) for part in parts])

    def sample(self, x: Inputs) -> Tensor:
        """Draw the sites and return the outputs; observe nothing."""
        slope = pyro.sample(self._slope, dist.Normal(0.0, 1.0))
        # with an axis for the outputs where draws vectorise
        return self.outputs({self._slope: slope.unsqueeze(-1)}, x)

    def forward(self, x: Inputs, y: Tensor | None = None) -> Tensor:
        """Sample, then observe y."""
        outputs = self.sample(x)
        observe(outputs, self.likelihood, y, size=self.size, name=self.name)
        return outputs
