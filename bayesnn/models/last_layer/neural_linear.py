"""The neural linear model: a learned body, and a last linear layer whose weights are random."""

import copy
import math

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.handlers import prefix_of, prefixed
from bayesnn.likelihoods import HasNormalNoise, Likelihood
from bayesnn.models.last_layer.model import LastLayerModel
from bayesnn.scales import Learned, Scale, check, moved, resolve


class NeuralLinear(LastLayerModel):
    """W ~ N(0, scale^2); y_i ~ likelihood(W phi(x_i)): a Bayesian linear layer on learned
    features.

    `BNN` with `subset.last_layer` puts a posterior on the head of a network that is trained
    already. Here body and posterior are trained together, so the body must be written to: the
    model owns **a deep copy** of `features`, its own sub-module and a point estimate, and never
    touches yours. The trained body is `model.features`; `model.network(W)` is a plain network with
    a given last layer.

    Train it with `LastLayer` and `LastLayerELBO` (any size of data, in batches), or with
    `LastLayerEvidence` (normal likelihood, all data at once). SVI with any guide, NUTS over W,
    `Predictive` and `predict` work as with a `BNN`.

    Args:
        features: x -> phi [batch, feature], in evaluation mode: no active dropout, no batch
            statistics.
        in_features: features that the body gives.
        out_features: outputs.
        likelihood: outputs [*draw, batch, out] -> distribution of y.
        scale: prior standard deviation of the weights: a number, a tensor that broadcasts to W,
            `learned(1.0)`, or a distribution (latent site "weight_scale"). Harrison et al. take
            feature^-1/2 for regression and (2 / feature)^1/2 for classification.
        relative: whether `scale` is in units of the noise of each output: then scale^2 is the
            signal-to-noise ratio alpha of Fiedler and Lucia. The likelihood is `normal` without a
            latent scale.
        noise_variance_prior: distribution of the noise *variance* of each output, whose log
            density (nats, once for all data) is added for a `normal(learned(...))`: the scale
            becomes a maximum a posteriori estimate. The inverse Wishart prior of Harrison et al.
            is InverseGamma((nu + out - 1) / 2, M / 2), with its constant.
        bias: append a constant 1 to the features; its weights have the same prior.
        size: examples in the training data, by which batches are scaled; None = each call is all
            data.
        name: prefixes sites and plate.

    Shapes: W, at the site "weight", is [out, feature (+ 1)], the constant last; outputs
    [batch, out].

    Raises:
        ValueError: a body in training mode or of another width; a `relative` scale or
            `noise_variance_prior` without the noise that it needs; a scale that is not positive.

    References: Snoek et al. (2015), Scalable Bayesian optimization using deep neural networks;
    Harrison, Willes, Snoek (2024), Variational Bayesian last layers; Fiedler, Lucia (2023),
    Improved uncertainty quantification for neural networks with Bayesian last layer.

    >>> from bayesnn import learned, likelihoods
    >>> body = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
    >>> model = NeuralLinear(body, 8, 2, likelihoods.normal(learned(0.1)), size=100)
    >>> model(torch.zeros(5, 3), torch.zeros(5, 2)).shape, model.sites
    (torch.Size([5, 2]), {'weight': torch.Size([2, 9])})
    """

    def __init__(
        self,
        features: nn.Module,
        in_features: int,
        out_features: int,
        likelihood: Likelihood,
        *,
        scale: Scale = 1.0,
        relative: bool = False,
        noise_variance_prior: dist.TorchDistribution | None = None,
        bias: bool = True,
        size: int | None = None,
        name: str = "",
    ) -> None:
        shape = (out_features, in_features)
        super().__init__(features, shape, likelihood, bias=bias, size=size, name=name)
        check("NeuralLinear", scale=scale)
        noise = likelihood.noise if isinstance(likelihood, HasNormalNoise) else None
        if relative and (noise is None or isinstance(noise, dist.Distribution)):
            raise ValueError("NeuralLinear: a relative scale needs the noise of likelihoods.normal, fixed or learned")
        if noise_variance_prior is not None and not isinstance(noise, Learned):
            raise ValueError(
                "NeuralLinear: a noise_variance_prior is for a learned noise, likelihoods.normal(learned(...))"
            )
        self.scale, self.relative, self.noise_variance_prior = scale, relative, noise_variance_prior
        self.to(device=self._zero.device, dtype=self._zero.dtype)  # a learned scale too

    def matrix_prior(self) -> dist.TorchDistribution:
        """p(W): normal with independent entries, one event of shape [out, feature]."""
        with prefixed(self.name):
            scale = resolve("weight_scale", self.scale, self._zero, 2)
        if self.relative:
            scale = scale * self.noise_scale().unsqueeze(-1)
        shape = torch.broadcast_shapes(scale.shape, self._zero.shape)
        return dist.Normal(self._zero.new_zeros(()), scale).expand(shape).to_event(2)

    def noise_scale(self) -> Tensor:
        """Standard deviation of y given W, [out], in units of y.

        Raises:
            ValueError: the likelihood is not `normal`, or its scale is latent.
        """
        likelihood = self.likelihood
        if not isinstance(likelihood, HasNormalNoise) or isinstance(likelihood.noise, dist.Distribution):
            raise ValueError(
                "NeuralLinear: the noise has to be that of likelihoods.normal(...), with a fixed or learned scale"
            )
        with prefixed(self.name):
            return likelihood.noise_scale(self._zero).expand(self._zero.shape[:1])

    def outputs_of_features(self, matrix: Tensor, phi: Tensor) -> Tensor:
        """phi W^T, [*lead, batch, out]."""
        return phi @ matrix.mT

    def start(self) -> Tensor:
        """The values at which guides start, [out, feature]: random, as in `nn.Linear`."""
        bound = 1 / math.sqrt(self._zero.shape[1])
        return torch.empty_like(self._zero).uniform_(-bound, bound)

    def network(self, weight: Tensor) -> nn.Sequential:
        """A plain network: copies of the body and of the given last layer [out, feature], in
        evaluation mode.
        """
        if weight.shape != self._zero.shape:
            raise ValueError(
                f"NeuralLinear.network: the last layer has shape {tuple(self._zero.shape)}, not {tuple(weight.shape)}"
            )
        layer = nn.Linear(self.in_features, len(weight), self.bias, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(weight[:, : self.in_features])
            if self.bias:
                layer.bias.copy_(weight[:, -1])
        return nn.Sequential(copy.deepcopy(self.features), layer).eval()

    def with_scale(self, scale: Scale) -> "NeuralLinear":
        """The same model under another prior scale, with a copy of the body."""
        return NeuralLinear(
            self.features,
            self.in_features,
            len(self._zero),
            copy.deepcopy(self.likelihood),
            scale=scale,
            relative=self.relative,
            noise_variance_prior=self.noise_variance_prior,
            bias=self.bias,
            size=self.size,
            name=self.name,
        )

    def factors(self) -> None:
        """The site "y_scale_prior": the log density of the learned noise under
        `noise_variance_prior`.
        """
        if self.noise_variance_prior is not None:
            variance = self.noise_scale() ** 2
            density = moved(self.noise_variance_prior, variance).expand(variance.shape).log_prob(variance).sum()
            pyro.factor(prefix_of(self.name) + "y_scale_prior", density)
