"""q(z | phi(x)) on the frozen features of a trained network: the guide of TST and V-TST."""

import copy
from collections.abc import Callable

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn.functional import Inputs, call, check_layers, mode_dependent
from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.handlers import param_site
from bayesnn.models import LatentHead
from bayesnn.models.truncation import TruncatedNetwork


class AmortisedHead(CheckedState):
    """q(z_i | x_i) = N(mu(phi(x_i)), diag s^2(phi(x_i))), or a point mass at mu: two small heads
    on frozen features.

    The guide of V-TST for the model `LatentHead`. Both heads have the published shape
    Linear(feature, 3 latent), ReLU, Linear(3 latent, latent), and share no weights; the variance
    is bounded by the prior's, log s^2 = log sigmoid(h) <= 0. Only the heads and the model's
    decoder are trained: `MeanFieldELBO()(model, guide)`. Predictions average probabilities over
    draws of z, `predictive(guide, x)`; one draw is a random z and not the mean.

    Features of data without augmentation need to be computed once only: train on
    `cache_features(features, loader)` with the guide `guide.of_features()`, which shares the
    heads.

    Args:
        features: x -> phi [batch, feature], such as `truncate(net, "fc")`; never trained, and no
            part of the guide's parameters or state.
        in_features: features that it gives.
        model: the `LatentHead`.
        hidden: width of the heads; 3 latent by default.
        bounded: whether log s^2 <= 0; else it is the head's output itself.
        point: q is a point mass at mu(phi): with a model of `kl_weight=0` it is TST, two-stage
            training.

    Raises:
        TypeError: a model that is no `LatentHead`.
        ValueError: features in training mode or of another width.

    Reference: Jordahn, Olmos (2024), Decoupling feature extraction and classification layers for
    calibrated neural networks.

    >>> from bayesnn import likelihoods
    >>> from bayesnn.guides import MeanFieldELBO
    >>> from bayesnn.models import truncate
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> model = LatentHead(4, 2, likelihoods.categorical, size=20)
    >>> guide = AmortisedHead(truncate(net, "2"), 8, model)
    >>> bool(MeanFieldELBO()(model, guide)(torch.zeros(5, 3), torch.tensor([0, 1, 0, 1, 0])) > 0)
    True
    """

    def __init__(
        self,
        features: Callable[..., Tensor],
        in_features: int,
        model: LatentHead,
        *,
        hidden: int | None = None,
        bounded: bool = True,
        point: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, LatentHead):
            raise TypeError(f"AmortisedHead: the model must be a LatentHead, not a {type(model).__name__}")
        # in tuples: neither is trained or saved with the guide
        self._features, self._model = (features,), (model,)
        self.in_features, self.bounded = in_features, bounded
        width = 3 * model.latent if hidden is None else hidden
        self.mean_head = _head(in_features, width, model.latent)
        self.variance_head = None if point else _head(in_features, width, model.latent)
        like = next(model.decoder.parameters(), torch.empty(0))
        self.to(device=like.device, dtype=like.dtype)

    @property
    def model(self) -> LatentHead:
        """The model that the guide approximates the posterior of."""
        return self._model[0]

    def forward(self, x: Inputs, y: Tensor | None = None) -> Tensor:
        """Sample z for every example of x; y is not used."""
        plate = self.model.plate(x)
        loc, variance = self.moments(x)
        q = dist.Delta(loc) if variance is None else dist.Normal(loc, variance.sqrt(), validate_args=False)
        with plate, self.model.weighted(x):
            z: Tensor = pyro.sample(self.model.site, q.to_event(1))
        return z

    def moments(self, x: Inputs) -> tuple[Tensor, Tensor | None]:
        """mu and s^2 of z, [batch, latent]; None for the variance of a point."""
        phi = self.phi(x)
        loc = self._through("mean_head", self.mean_head, phi)
        if self.variance_head is None:
            return loc, None
        raw = self._through("variance_head", self.variance_head, phi)
        return loc, raw.sigmoid() if self.bounded else raw.exp()

    @torch.no_grad()
    def phi(self, x: Inputs) -> Tensor:
        """The features [batch, feature], without gradients."""
        features = self._features[0]
        if isinstance(features, TruncatedNetwork) and features.batch_statistics:
            phi = features(*x) if isinstance(x, (tuple, list)) else features(x)
        elif isinstance(features, nn.Module):
            check_layers(mode_dependent(features), "AmortisedHead")
            phi = call(features, {}, x)
        else:
            phi = features(x)
        if phi.dim() != 2 or phi.shape[1] != self.in_features:
            raise ValueError(
                f"AmortisedHead: the features have shape {tuple(phi.shape)}, but [batch, {self.in_features}] was "
                "announced; change in_features, or give `guide.of_features()` what features were cached"
            )
        return phi.to(self.mean_head[0].weight.dtype)

    def of_features(self) -> "AmortisedHead":
        """A guide with the same, shared heads that takes cached features phi in the place of x."""
        other = copy.copy(self)  # of the module, not of its sub-modules
        other._features = (nn.Identity(),)
        return other

    @torch.no_grad()
    def output_distribution(self, x: Inputs) -> dist.TorchDistribution:
        """N(A mu + b, A diag(s^2) A^T) over the outputs, [batch] x [out]: exact for a linear
        decoder, without draws.

        Raises:
            TypeError: another decoder, or a guide that is a point; draw with `predictive`.
        """
        decoder = self.model.decoder
        loc, variance = self.moments(x)
        if not isinstance(decoder, nn.Linear) or variance is None:
            raise TypeError(
                "AmortisedHead.output_distribution: outputs are normal for a linear decoder of a normal z alone; use "
                "predictive(guide, x)"
            )
        root = decoder.weight * variance.sqrt().unsqueeze(-2)  # [batch, out, latent]
        covariance = root @ root.mT
        # outputs may be more than entries of z
        jitter = 1e-6 * covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
        covariance.diagonal(dim1=-2, dim2=-1).add_(jitter.unsqueeze(-1))
        return dist.MultivariateNormal(F.linear(loc, decoder.weight, decoder.bias), covariance)

    def _through(self, name: str, head: nn.Sequential, phi: Tensor) -> Tensor:
        prefix = f"AmortisedHead[{self.model.site}].{name}."
        return call(head, {n: param_site(prefix + n, p) for n, p in head.named_parameters()}, phi)

    def _fingerprint(self) -> str:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in self.named_parameters())
        return f"{self.model.site}; {shapes}; bounded {self.bounded}"


def _head(in_features: int, hidden: int, latent: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, latent))
