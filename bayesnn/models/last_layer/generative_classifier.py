"""A generative classifier on learned features: one normal distribution of the
features for each class.
"""

import math

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.handlers import prefixed
from bayesnn.likelihoods import categorical
from bayesnn.models.last_layer.model import LastLayerModel
from bayesnn.scales import Scale, check, resolve


class GenerativeClassifier(LastLayerModel):
    """mu_k ~ N(0, scale^2); p(y = k | x, mu) ~ rho_k N(phi(x); mu_k, diag(noise^2)): class means
    in feature space.

    The random matrix holds the class means. The likelihood is that of y given x by Bayes' rule:
    outputs are f_k = log rho_k + log N(phi; mu_k, diag(noise^2)), and y ~ Categorical(softmax(f)).

    As in `NeuralLinear`, the body is **a deep copy** of `features`, learned as a point estimate,
    and yours is never touched. Train it with `LastLayer` and `LastLayerELBO`;
    `guide.target_distribution(x)` predicts in closed form, by the marginal densities N(phi; E
    mu_k, diag(noise^2) + Cov mu_k) of the features.

    Args:
        features: x -> phi [batch, feature], in evaluation mode.
        in_features: features that the body gives.
        classes: labels are 0 ... classes - 1.
        scale: prior standard deviation of the means, in units of the features: a number,
            `learned(1.0)`, a distribution.
        noise: standard deviation of the features within a class, one number or one for each:
            fixed, or `learned(1.0)`.
        class_probs: rho [class], positive; uniform by default. Give the training data's
            frequencies where they differ.
        size: examples in the training data, by which batches are scaled; None = each call is all
            data.
        name: prefixes sites and plate.

    Shapes: mu, at the site "means", is [class, feature]; outputs [batch, class], log densities in
    nats; y [batch].

    Raises:
        ValueError: a body in training mode or of another width, scales or probabilities that are
            not positive.
        TypeError: a latent `noise`.

    Reference: Harrison, Willes, Snoek (2024), Variational Bayesian last layers.

    >>> body = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
    >>> model = GenerativeClassifier(body, 8, 4, size=100)
    >>> model(torch.zeros(5, 3), torch.tensor([0, 1, 2, 3, 0])).shape, model.sites
    (torch.Size([5, 4]), {'means': torch.Size([4, 8])})
    """

    block = "means"

    def __init__(
        self,
        features: nn.Module,
        in_features: int,
        classes: int,
        *,
        scale: Scale = 1.0,
        noise: Scale = 1.0,
        class_probs: Tensor | None = None,
        size: int | None = None,
        name: str = "",
    ) -> None:
        super().__init__(features, (classes, in_features), categorical, bias=False, size=size, name=name)
        check("GenerativeClassifier", scale=scale, noise=noise)
        if isinstance(noise, dist.Distribution):
            raise TypeError("GenerativeClassifier: the noise is a number, a tensor or learned(...), not a distribution")
        probs = torch.ones(classes) if class_probs is None else class_probs
        if probs.shape != (classes,) or not bool((probs > 0).all() and probs.isfinite().all()):
            raise ValueError(f"GenerativeClassifier: class_probs are {classes} positive numbers, not {probs.tolist()}")
        self.scale, self.noise = scale, noise
        self.register_buffer("log_class_probs", (probs / probs.sum()).to(self._zero).log(), persistent=False)
        self.to(device=self._zero.device, dtype=self._zero.dtype)

    log_class_probs: Tensor

    def matrix_prior(self) -> dist.TorchDistribution:
        """p(mu): normal with independent entries, one event of shape [class, feature]."""
        with prefixed(self.name):
            scale = resolve("means_scale", self.scale, self._zero, 2)
        shape = torch.broadcast_shapes(scale.shape, self._zero.shape)
        return dist.Normal(self._zero.new_zeros(()), scale).expand(shape).to_event(2)

    def noise_scale(self) -> Tensor:
        """Standard deviation of the features within a class, [feature]."""
        with prefixed(self.name):
            return resolve("features_scale", self.noise, self._zero, 1).expand(self._zero.shape[1:])

    def outputs_of_features(self, matrix: Tensor, phi: Tensor) -> Tensor:
        """log rho_k + log N(phi; mu_k, diag(noise^2)), [*lead, batch, class], in nats."""
        scale = self.noise_scale()
        standardised = (phi / scale).unsqueeze(-2) - (matrix / scale).unsqueeze(-3)
        constant = scale.log().sum() + len(scale) / 2 * math.log(2 * math.pi)
        return self.log_class_probs - 0.5 * standardised.square().sum(-1) - constant

    def start(self) -> Tensor:
        """The values at which guides start, [class, feature]: standard normal numbers."""
        return torch.randn_like(self._zero)
