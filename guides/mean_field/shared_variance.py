"""Normal guides with few variances: one for the network, for each layer, or for each tensor."""

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints

from bayesnn.functional import Inputs
from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.guides.common.latent_sites import latent_sites
from bayesnn.guides.common.output_normal import linearised_outputs
from bayesnn.guides.mean_field.variance_groups import per_network
from bayesnn.handlers import param_site
from bayesnn.models import BNN


class SharedVariance(CheckedState):
    """q(w) = prod_b N(w_b; m_b, s_b^2 I): every scalar has its own mean, the scalars of a group share a variance.

    As many parameters beside the means as there are groups, and a variance that many gradients teach at once.

    Its parameters are `loc`, all means in order, and `log_scale`, [group].

    Args:
        model: a `BNN` or any Pyro model with real, continuous, global sites.
        *example: arguments of one call of the model; a `BNN` needs none unless its likelihood has latent sites.
        over: site name -> the name of its group: `per_network`, `per_layer`, `per_tensor` or a function of your own.
        init: {site: value} where means start; a `BNN`'s own weights by default, elsewhere the prior's draw.
        scale: initial standard deviations, in units of the weights.

    Raises:
        ValueError: a discrete or constrained site (named), an `init` of an unknown site or another shape.
        TypeError: a model that is no `BNN`, without an example.

    Reference: Unlu and Aitchison (2020), Gradient regularisation as approximate variational inference, first version.

    >>> from bayesnn import likelihoods, priors, subset
    >>> from bayesnn.guides.mean_field import per_layer
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(0.1))
    >>> SharedVariance(model, over=per_layer).groups
    {'0': ['0.weight', '0.bias'], '2': ['2.weight', '2.bias']}
    """

    def __init__(
        self,
        model: Any,
        *example: Any,
        over: Callable[[str], str] = per_network,
        init: Mapping[str, Tensor] | None = None,
        scale: float = 0.01,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"SharedVariance: the initial standard deviation must be positive, not {scale}")
        self._model = (model,)
        self._sites, drawn = latent_sites(model, example)
        start = {**drawn, **(model.values() if isinstance(model, BNN) else {}), **(init or {})}
        for name, value in start.items():
            _check_start(name, value, drawn)
        for name, site in self._sites.items():
            if site.support is not constraints.real:
                raise ValueError(
                    f"SharedVariance: site {name!r} is constrained to {site.support}, and shares no variance with "
                    "weights; give it a fixed or learned value, or use MeanField"
                )
        self.groups: dict[str, list[str]] = {}
        for name in self._sites:
            self.groups.setdefault(over(name), []).append(name)
        self.loc = nn.Parameter(torch.cat([start[name].detach().reshape(-1) for name in self._sites]))
        self.log_scale = nn.Parameter(torch.full_like(self.loc.detach()[: len(self.groups)], scale).log())

    @property
    def model(self) -> Any:
        """The model that the guide approximates the posterior of."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; the arguments are the model's and are not used."""
        owner = f"SharedVariance[{next(iter(self._sites))}]"
        locs = self._split(param_site(f"{owner}.loc", self.loc))
        scales = self._by_site(param_site(f"{owner}.log_scale", self.log_scale).exp())
        values = {}
        for (name, site), loc in zip(self._sites.items(), locs, strict=True):
            with site.within_plates():
                normal = dist.Normal(loc, scales[name], validate_args=False)
                values[name] = pyro.sample(name, normal.to_event(site.event_dim))
        return values

    @torch.no_grad()
    def output_distribution(self, x: Inputs) -> dist.MultivariateNormal:
        """N(f(x; m), J S J^T) over the outputs, [batch] x [class]: the network linearised at the mean.

        Raises:
            TypeError: the guide's model is no `BNN`.
        """
        means = dict(zip(self._sites, self._split(self.loc), strict=True))
        return linearised_outputs(self, self.model, means, self._by_site(self.log_scale.exp()), x)

    def _fingerprint(self) -> str:
        sites = ", ".join(f"{name} {list(site.shape)}" for name, site in self._sites.items())
        subset = f"; subset {self.model.subset.fingerprint()}" if isinstance(self.model, BNN) else ""
        return f"{sites}; groups {self.groups}{subset}"

    def _by_site(self, scales: Tensor) -> dict[str, Tensor]:
        """{site: the scale of its group}."""
        return {name: scale for names, scale in zip(self.groups.values(), scales, strict=True) for name in names}

    def _split(self, flat: Tensor) -> list[Tensor]:
        shapes = [site.shape for site in self._sites.values()]
        return [
            part.reshape(shape) for part, shape in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)
        ]


def _check_start(name: str, value: Tensor, sites: Mapping[str, Tensor]) -> None:
    if name not in sites:
        raise ValueError(f"SharedVariance: init has {name!r}, but the sites are {', '.join(sites)}")
    if value.shape != sites[name].shape:
        raise ValueError(
            f"SharedVariance: the start of {name!r} has shape {tuple(value.shape)}, the site {tuple(sites[name].shape)}"
        )
