"""The base class of factorised normal guides: sites, two parameters, and draws made of them."""

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Size, Tensor, nn
from torch.distributions import biject_to, constraints

from bayesnn.functional import Inputs
from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.guides.common.latent_sites import LatentSite, latent_sites
from bayesnn.guides.common.output_normal import linearised_outputs
from bayesnn.handlers import param_site
from bayesnn.models import BNN
from bayesnn.sites import from_vector, to_vector


class FactorisedNormal(CheckedState):
    """q(w) = prod_j N(w_j; m_j, s_j^2) in unconstrained space; a subclass says which entries share
    an s.

    Its parameters are `loc`, all means in the order of the sites, and `log_scale`, the logarithms
    of all s.

    Raises:
        ValueError: an initial scale that is not positive, a discrete site (named), a site inside a
            subsampled plate, a `BNN`'s example without targets, an `init` of an unknown site, of
            another shape or outside the support.
        TypeError: a model that is no `BNN`, without an example.
    """

    log_scale: nn.Parameter

    def __init__(self, model: Any, example: tuple[Any, ...], init: Mapping[str, Tensor] | None, scale: float) -> None:
        super().__init__()
        owner = type(self).__name__
        if not scale > 0:
            raise ValueError(f"{owner}: the initial standard deviation must be positive, not {scale}")
        self._model = (model,)
        self._sites, drawn = latent_sites(model, example)
        start = {**drawn, **(model.values() if isinstance(model, BNN) else {}), **(init or {})}
        if unknown := sorted(start.keys() - self._sites.keys()):
            raise ValueError(f"{owner}: init has {unknown[0]!r}, but the sites are {', '.join(self._sites)}")
        locs = {name: _start(owner, name, site, start[name]) for name, site in self._sites.items()}
        self.shapes: dict[str, Size] = {name: loc.shape for name, loc in locs.items()}
        self.loc = nn.Parameter(to_vector(locs, locs))  # a copy, of the network's weights too

    @property
    def model(self) -> Any:
        """The model that the guide approximates the posterior of."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; the arguments are the model's and are not used."""
        # site names differ where two guides meet in one
        owner = f"{type(self).__name__}[{next(iter(self._sites))}]"
        locs = from_vector(param_site(f"{owner}.loc", self.loc), self.shapes)
        scales = self._by_site(param_site(f"{owner}.log_scale", self.log_scale).exp())
        values = {}
        for name, site in self._sites.items():
            with site.within_plates():
                values[name] = pyro.sample(name, _distribution(site, locs[name], scales[name]))
        return values

    @torch.no_grad()
    def output_distribution(self, x: Inputs) -> dist.MultivariateNormal:
        """N(f(x; m), J diag(s^2) J^T), [batch] x [class]: the network linearised at the mean.

        Raises:
            TypeError: the guide's model is no `BNN`.
        """
        means = from_vector(self.loc, self.shapes)
        return linearised_outputs(self, self.model, means, self._by_site(self.log_scale.exp()), x)

    def _by_site(self, scales: Tensor) -> dict[str, Tensor]:
        """{site: its standard deviations, which broadcast to its shape}."""
        raise NotImplementedError

    def _fingerprint(self) -> str:
        sites = ", ".join(f"{name} {list(shape)}" for name, shape in self.shapes.items())
        return f"{sites}; subset {self.model.subset.fingerprint()}" if isinstance(self.model, BNN) else sites


def _start(owner: str, name: str, site: LatentSite, value: Tensor) -> Tensor:
    """Where the mean of a site starts, in unconstrained space."""
    if value.shape != site.shape:
        raise ValueError(
            f"{owner}: the start of {name!r} has shape {tuple(value.shape)}, the site has {tuple(site.shape)}"
        )
    loc: Tensor = biject_to(site.support).inv(value.detach())
    if not bool(torch.isfinite(loc).all()):
        raise ValueError(f"{owner}: the start of {name!r} is not inside the site's support, {site.support}")
    return loc


def _distribution(site: LatentSite, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
    normal = dist.Normal(loc, scale, validate_args=False)
    if site.support is constraints.real:
        return normal.to_event(site.event_dim)
    transform = biject_to(site.support)
    changed = dist.TransformedDistribution(normal.to_event(transform.domain.event_dim), transform)
    return changed.to_event(site.event_dim - changed.event_dim)
