"""A normal posterior over the last layer of a learned body, trained together with it."""

import math
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from typing_extensions import override

from bayesnn.functional import Inputs
from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.guides.last_layer.outputs import output_distribution, target_distribution
from bayesnn.handlers import param_site
from bayesnn.models.last_layer.model import LastLayerModel


class LastLayer(CheckedState):
    """q(W) = prod_k N(w_k; m_k, S_k): every output has a normal distribution with full covariance
    over its weights.

    For a `NeuralLinear` or a `GenerativeClassifier` (whose rows are class means). With
    `LastLayerELBO` it is VBLL: a deterministic loss, quadratic in the number of features.
    S_k = L_k L_k^T with L_k lower triangular, so that the exact posterior of a normal likelihood
    is within the family.

    Args:
        model: the model whose last layer is random; its body is trained with the guide.
        scale: initial standard deviations, in units of the weights.

    Parameters: `loc` [row, feature]; `log_scale` [row, feature], the logarithm of L's diagonal;
    `lower` [row, feature, feature], whose strict lower triangle is that of L.

    Raises:
        TypeError: a model of another kind.
        ValueError: a scale that is not positive; a state of another model.

    Reference: Harrison, Willes, Snoek (2024), Variational Bayesian last layers.

    >>> from bayesnn import learned, likelihoods
    >>> from bayesnn.guides import LastLayerELBO
    >>> from bayesnn.models import NeuralLinear
    >>> body = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
    >>> model = NeuralLinear(body, 8, 2, likelihoods.normal(learned(0.1)), size=100)
    >>> guide = LastLayer(model)
    >>> loss = LastLayerELBO()(model, guide)(torch.zeros(5, 3), torch.zeros(5, 2))
    >>> guide.output_distribution(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """

    def __init__(self, model: LastLayerModel, *, scale: float = 0.1) -> None:
        super().__init__()
        owner = type(self).__name__
        if not isinstance(model, LastLayerModel):
            raise TypeError(
                f"{owner}: a NeuralLinear or a GenerativeClassifier is needed, not {type(model).__name__}; for the "
                "last layer of a trained network use BNN with subset.last_layer and Laplace or MeanField"
            )
        if not scale > 0:
            raise ValueError(f"{owner}: the initial standard deviation must be positive, not {scale}")
        self._model = (model,)
        self.loc = nn.Parameter(model.start())
        self.log_scale = nn.Parameter(torch.full_like(self.loc.detach(), math.log(scale)))
        self._make_root()

    @property
    def model(self) -> LastLayerModel:
        """The model that the guide approximates the posterior of."""
        return self._model[0]

    def matrix_distribution(self) -> dist.TorchDistribution:
        """q(W), one event of shape [row, feature]; with gradients."""
        root = self._announced("lower").tril(-1) + torch.diag_embed(self._announced("log_scale").exp())
        return dist.MultivariateNormal(self._announced("loc"), scale_tril=root, validate_args=False).to_event(1)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the last layer; the arguments are the model's and are not used."""
        return {self.model.site: pyro.sample(self.model.site, self.matrix_distribution())}

    def output_distribution(self, x: Inputs) -> dist.MultivariateNormal:
        """N(phi^T m_k, phi^T S_k phi) over the outputs of a `NeuralLinear`, [batch] x [out]:
        exact, diagonal.

        Raises:
            TypeError: a `GenerativeClassifier`, whose outputs are not normal.
            ValueError: a body in training mode.
        """
        return output_distribution(self.model, self.matrix_distribution(), x, type(self).__name__)

    def target_distribution(self, x: Inputs) -> dist.TorchDistribution:
        """p(y | x) with the last layer integrated out, [batch]: closed for a normal y and a
        generative classifier.

        N(phi^T m_k, phi^T S_k phi + noise_k^2), or Categorical(rho_k N(phi; m_k,
        diag(noise^2) + S_k)).

        Raises:
            TypeError: a likelihood without a closed form (labels of a `NeuralLinear`); use
                `predictive`.
        """
        return target_distribution(self.model, self.matrix_distribution(), x, type(self).__name__)

    def _fingerprint(self) -> str:
        return f"{type(self.model).__name__} {self.model.site} {list(self.loc.shape)}"

    def _make_root(self) -> None:
        rows, width = self.loc.shape
        self.lower = nn.Parameter(self.loc.new_zeros(rows, width, width).detach())

    def _announced(self, name: str) -> Tensor:
        return param_site(f"{type(self).__name__}[{self.model.site}].{name}", getattr(self, name))


class LastLayerMeanField(LastLayer):
    """q(W) = prod_kj N(w_kj; m_kj, s_kj^2): the same with independent weights, linear in the
    number of features.

    Its parameters are `loc` and `log_scale`. Arguments, methods and reference as in `LastLayer`.

    >>> from bayesnn.models import GenerativeClassifier
    >>> body = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
    >>> guide = LastLayerMeanField(GenerativeClassifier(body, 8, 4))
    >>> guide.target_distribution(torch.zeros(5, 3)).probs.shape
    torch.Size([5, 4])
    """

    @override
    def matrix_distribution(self) -> dist.TorchDistribution:
        scale = self._announced("log_scale").exp()
        return dist.Normal(self._announced("loc"), scale, validate_args=False).to_event(2)

    def _make_root(self) -> None:
        pass
