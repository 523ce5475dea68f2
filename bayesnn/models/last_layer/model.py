"""The base class of models of a random last layer: they own the body, trained with the guide."""

import copy
from collections.abc import Mapping, Sequence

import pyro
import torch
from pyro import distributions as dist
from torch import Size, Tensor, nn
from torch.nn import functional as F

from bayesnn.functional import Inputs, alone, call, call_chunks, check_evaluation_mode, check_layers, mode_dependent
from bayesnn.handlers import SurroundingPlates, param_site, prefix_of
from bayesnn.likelihoods import Likelihood
from bayesnn.models.checks import check_name, check_outside, checked_size
from bayesnn.models.inputs import check_inputs
from bayesnn.models.observe import observe
from bayesnn.scales import Scale


class LastLayerModel(nn.Module):
    """A model with one random matrix [row, feature] on the features phi(x) of a learned body.

    A model adds `matrix_prior()`, the distribution of the matrix,
    `outputs_of_features(matrix, phi)` and `start()`, where guides begin.
    """

    block = "weight"  # the site's name, without the model's

    def __init__(
        self,
        features: nn.Module,
        shape: tuple[int, int],
        likelihood: Likelihood,
        *,
        bias: bool,
        size: int | None,
        name: str,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        rows, width = shape
        if rows < 1 or width < 1:
            raise ValueError(f"{owner}: there is at least one feature and one output, not {width} and {rows}")
        self.size = checked_size(owner, size)
        check_name(owner, name)
        check_evaluation_mode(features, owner)
        with alone():
            self.features = copy.deepcopy(features)
        self._mode_dependent = (mode_dependent(self.features),)
        self.likelihood = likelihood
        self.in_features, self.bias = width, bias
        self.name = name
        self.local: frozenset[str] = frozenset()
        like = next(features.parameters(), torch.empty(0))
        self.register_buffer("_zero", torch.zeros(rows, width + bias), persistent=False)
        self.to(device=like.device, dtype=like.dtype)

    scale: Scale
    _zero: Tensor

    @property
    def net(self) -> nn.Module:
        """The body: this model's own copy, which training changes."""
        return self.features

    @property
    def prior(self) -> Scale:
        """The scale of the prior.

        A guide whose prior was changed belongs to the model that has it.
        """
        return self.scale

    @property
    def site(self) -> str:
        """The name of the random matrix."""
        return prefix_of(self.name) + self.block

    @property
    def sites(self) -> dict[str, Size]:
        """{site name: event shape} of the random matrix, the only one."""
        return {self.site: self._zero.shape}

    def matrix_prior(self) -> dist.TorchDistribution:
        """p(matrix), one event of two axes."""
        raise NotImplementedError

    def outputs_of_features(self, matrix: Tensor, phi: Tensor) -> Tensor:
        """[*lead, batch, out] from the matrix [*lead, row, feature] and phi [batch, feature]."""
        raise NotImplementedError

    def start(self) -> Tensor:
        """The values at which guides start, [row, feature]."""
        raise NotImplementedError

    def phi(self, x: Inputs) -> Tensor:
        """The features [batch, feature], a last column of ones included where the layer has a
        bias; with gradients.
        """
        check_layers(self._mode_dependent[0], type(self).__name__)
        check_inputs(x)
        prefix = prefix_of(self.name) + "features."
        values = {n: param_site(prefix + n, p) for n, p in self.features.named_parameters() if p.requires_grad}
        return self._with_constant(call(self.features, values, x))

    def outputs(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """The outputs at a value of the matrix, [batch, out]: without Pyro, and
        without gradients of the body.
        """
        return self.outputs_of_features(self._matrix(values), self._with_constant(call(self.features, {}, x)))

    def outputs_of_chunks(self, values: Mapping[str, Tensor], parts: Sequence[Inputs]) -> Tensor:
        """The outputs at consecutive parts of one set of inputs, joined."""
        return self.outputs_of_features(
            self._matrix(values), self._with_constant(call_chunks(self.features, {}, parts))
        )

    def sample(self, x: Inputs) -> Tensor:
        """Draw the matrix from the prior's site and return the outputs; observes nothing."""
        return self._sample(self.phi(x))

    def head(self, phi: Tensor, y: Tensor | None = None) -> Tensor:
        """The Pyro model above the body: `forward` where the features phi(x) are known already."""
        outputs = self._sample(phi)
        self.factors()
        observe(outputs, self.likelihood, y, size=self.size, name=self.name)
        return outputs

    def forward(self, x: Inputs, y: Tensor | None = None) -> Tensor:
        """Sample, then observe y (without y: sample it at the site "y"). Returns the outputs."""
        return self.head(self.phi(x), y)

    def factors(self) -> None:
        """Sites for the prior densities of learned scales, once for all data."""

    def _sample(self, phi: Tensor) -> Tensor:
        with SurroundingPlates() as plates:
            matrix = pyro.sample(self.site, self.matrix_prior())
        check_outside(plates, type(self).__name__, "its last layer is")
        lead = matrix.shape[:-2]
        # Predictive(parallel=True) leaves some of these out
        lead = lead + (1,) * (plates.depth - len(lead))
        if plates.depth:
            # the data plate's axis, of size 1
            matrix = matrix.reshape(lead[:-1] + matrix.shape[-2:])
        return self.outputs_of_features(matrix, phi)

    def _matrix(self, values: Mapping[str, Tensor]) -> Tensor:
        if self.site not in values:
            raise ValueError(
                f"{type(self).__name__}: no value of {self.site!r}, which is random; there are "
                f"{', '.join(values) or 'none'}"
            )
        return values[self.site]

    def _with_constant(self, phi: Tensor) -> Tensor:
        if phi.dim() != 2 or phi.shape[1] != self.in_features:
            raise ValueError(
                f"{type(self).__name__}: the body gives features of shape {tuple(phi.shape)}, but [batch, "
                f"{self.in_features}] was announced; end it with nn.Flatten(), or change in_features"
            )
        return F.pad(phi, (0, 1), value=1.0) if self.bias else phi
