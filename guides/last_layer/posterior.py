"""The exact posterior of a last layer under a normal likelihood, and its extrapolation tuned on
validation data.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn.functional import Inputs, to_device
from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.guides.last_layer import regression
from bayesnn.guides.last_layer.evidence import check_model
from bayesnn.guides.last_layer.moments import rows_of
from bayesnn.guides.last_layer.outputs import output_distribution, target_distribution
from bayesnn.models import NeuralLinear
from bayesnn.models.observe import check_target

SUMS = ("gram", "products", "squares", "count")
STATISTICS = (*SUMS, "loc", "scale_tril")


class LastLayerPosterior(CheckedState):
    """q(W) = prod_k N(w_k; m_k, S_k), S_k = (Phi^T Phi / noise_k^2 + P_k)^-1, m_k = S_k Phi^T
    y_k / noise_k^2: exact.

    The posterior of a `NeuralLinear` with normal likelihood, given its body and scales as they are
    when `fit` is called (train them first, with `LastLayerEvidence` or `LastLayerELBO`;
    P_k = diag(scale_k^-2) is the prior's precision). It keeps Phi^T Phi and Phi^T y in double
    precision, so further data are added by `update` at the cost of their own.

    Args:
        model: with `likelihoods.normal`, its noise and the prior's scale fixed or learned.

    Raises:
        TypeError: a model of another kind.
        ValueError: another likelihood, a latent scale; an empty loader, data that do not fit; use
            before `fit`.

    References: MacKay (1992), Bayesian interpolation; Fiedler, Lucia (2023), Improved uncertainty
    quantification for neural networks with Bayesian last layer.

    >>> from torch import nn
    >>> from bayesnn import likelihoods
    >>> model = NeuralLinear(nn.Identity(), 1, 1, likelihoods.normal(1.0), bias=False)
    >>> guide = LastLayerPosterior(model).fit([(torch.ones(3, 1), torch.ones(3, 1))])
    >>> guide.output_distribution(torch.ones(1, 1)).variance     # 1 / (3 + 1)
    tensor([[0.2500]])
    """

    gram: Tensor | None

    def __init__(self, model: NeuralLinear) -> None:
        super().__init__()
        check_model("LastLayerPosterior", model)
        self._model = (model,)
        for name in STATISTICS:
            self.register_buffer(name, None)

    @property
    def model(self) -> NeuralLinear:
        """The model whose posterior this is; after `maximise_predictive` its
        prior is that of the covariance.
        """
        return self._model[0]

    def fit(self, loader: Iterable[tuple[Inputs, Tensor]]) -> "LastLayerPosterior":
        """The posterior given these batches (x, y) alone, each example once;
        returns this guide.
        """
        return self._given(self._sums(loader))

    def update(self, loader: Iterable[tuple[Inputs, Tensor]]) -> "LastLayerPosterior":
        """The posterior given further batches too, as if all had been given to
        `fit`; returns this guide.
        """
        new = self._sums(loader)
        if self.gram is None:
            return self._given(new)
        return self._given([self._statistic(name) + value for name, value in zip(SUMS, new, strict=True)])

    @torch.no_grad()
    def log_evidence(self) -> Tensor:
        """log p(y) = sum_k log N(y_k; 0, noise_k^2 I + Phi P_k^-1 Phi^T) of the
        data given, in nats; a double.
        """
        products, squares, count = (self._statistic(name) for name in ("products", "squares", "count"))
        return regression.log_evidence(self._spectrum(), products, squares, count, self._scales()[1])

    @torch.no_grad()
    def maximise_predictive(
        self, x: Inputs, y: Tensor, *, reach: float = 10.0, points: int = 1001, condition: float = 1e8
    ) -> "LastLayerPosterior":
        """The guide whose prior variance maximises the log predictive density of held-out data;
        the mean is kept.

        The evidence sets the signal-to-noise ratio alpha for the training data, which leaves
        extrapolations too sure. Multiplying the prior's variance by a factor widens the posterior
        in directions without data alone. Body, noise and m_k stay; the search goes over `points`
        factors from 1 to e^reach, up to where the precision's condition number exceeds
        `condition`.

        The density of data inside the range of the training data is nearly flat in the factor:
        hundredths of a nat decide, and other validation data may give another factor. With few of
        them look at the result.

        Args:
            x: inputs of the validation data, in one batch.
            y: their targets, [batch, out].
            reach: logarithm of the largest factor.
            points: factors tried.
            condition: largest condition number.

        Returns:
            a new guide, whose `model` is a copy with that prior scale.
        """
        (scale, noise), spectrum = self._scales(), self._spectrum()
        phi = self.model.phi(x).double()
        errors = y.double() - phi @ self._statistic("loc").mT
        factor = regression.best_factor(spectrum, phi, errors, noise, reach=reach, points=points, condition=condition)
        if self.model.relative:
            scale = scale / noise.unsqueeze(-1)
        other = LastLayerPosterior(self.model.with_scale(scale * math.sqrt(factor)))
        for name in STATISTICS:
            setattr(other, name, self._fitted(name))
        other.scale_tril = regression.covariance_root(spectrum, factor).to(self._fitted("loc").dtype)
        return other

    def output_distribution(self, x: Inputs) -> dist.MultivariateNormal:
        """N(phi^T m_k, phi^T S_k phi) over the outputs, [batch] x [out]: exact, diagonal."""
        return output_distribution(self.model, self.matrix_distribution(), x, "LastLayerPosterior")

    def target_distribution(self, x: Inputs) -> dist.TorchDistribution:
        """p(y | x) = N(phi^T m_k, phi^T S_k phi + noise_k^2), [batch]."""
        return target_distribution(self.model, self.matrix_distribution(), x, "LastLayerPosterior")

    def matrix_distribution(self) -> dist.TorchDistribution:
        """q(W), one event of shape [out, feature]."""
        loc, root = self._fitted("loc"), self._fitted("scale_tril")
        return dist.MultivariateNormal(loc, scale_tril=root, validate_args=False).to_event(1)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the last layer; the arguments are the model's and are not used."""
        return {self.model.site: pyro.sample(self.model.site, self.matrix_distribution())}

    def _prepare(self, state: Mapping[str, Any]) -> None:
        device = self.model.noise_scale().device
        for name in STATISTICS:
            held = state.get(name)
            setattr(self, name, None if held is None else torch.empty_like(held, device=device))

    def _fingerprint(self) -> str:
        return f"{type(self.model).__name__} {self.model.site} {list(self.model.sites[self.model.site])}"

    def _fitted(self, name: str) -> Tensor:
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError("LastLayerPosterior: call fit(loader) first")
        return value

    def _statistic(self, name: str) -> Tensor:
        return self._fitted(name).double()

    @torch.no_grad()
    def _sums(self, loader: Iterable[tuple[Inputs, Tensor]]) -> list[Tensor]:
        """Phi^T Phi [feature, feature], Phi^T y_k [out, feature], |y_k|^2 [out]
        and the number of examples.
        """
        _, noise = self._scales()
        sums: list[Tensor] = []
        for x, y in loader:
            phi = self.model.phi(to_device(x, noise.device))
            target = y.to(noise.device) if isinstance(y, Tensor) else y
            check_target(self.model.likelihood(phi.new_zeros(len(phi), len(noise))), target)
            phi, target = phi.double(), target.double()
            new = [phi.mT @ phi, target.mT @ phi, target.square().sum(0), noise.new_tensor(float(len(phi)))]
            sums = [a + b for a, b in zip(sums, new, strict=True)] if sums else new
        if not sums:
            raise ValueError("LastLayerPosterior: the loader is empty")
        return sums

    @torch.no_grad()
    def _given(self, sums: list[Tensor]) -> "LastLayerPosterior":
        for name, value in zip(SUMS, sums, strict=True):
            setattr(self, name, value)
        spectrum, dtype = self._spectrum(), self.model.noise_scale().dtype
        self.loc = regression.mean(spectrum, self._statistic("products"), self._scales()[1]).to(dtype)
        self.scale_tril = regression.covariance_root(spectrum).to(dtype)
        return self

    def _scales(self) -> tuple[Tensor, Tensor]:
        """Standard deviations of the prior, [out, feature], and of the noise,
        [out], in double precision.
        """
        rows = rows_of(self.model.matrix_prior())
        assert isinstance(rows, dist.Normal)
        return rows.scale.detach().double(), self.model.noise_scale().detach().double()

    def _spectrum(self) -> regression.Spectrum:
        return regression.spectrum_of(self._statistic("gram"), *self._scales())
