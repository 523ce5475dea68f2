"""Normal guides with few variances: one for the network, for each layer, or for each tensor."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from bayesnn.guides.mean_field.factorised import FactorisedNormal


def per_network(site: str) -> str:
    """All sites share one variance."""
    return "network"


def per_layer(site: str) -> str:
    """The sites of one layer, `fc1.weight` and `fc1.bias`, share a variance."""
    return site.rpartition(".")[0]


def per_tensor(site: str) -> str:
    """Every site has its own variance."""
    return site


class SharedVariance(FactorisedNormal):
    """q(w) = prod_b N(w_b; m_b, s_b^2 I): every scalar has its own mean, the scalars of a group
    share a variance.

    As many parameters beside the means as there are groups, and a variance that many gradients
    teach at once.

    Its parameters are `loc`, all means in order, and `log_scale`, [group].

    Args:
        model: a `BNN` or any Pyro model with real, continuous, global sites.
        *example: arguments of one call of the model; a `BNN` needs none unless its likelihood has
            latent sites.
        over: site name -> the name of its group: `per_network`, `per_layer`, `per_tensor` or a
            function of your own.
        init: {site: value} where means start; a `BNN`'s own weights by default, elsewhere the
            prior's draw.
        scale: initial standard deviations, in units of the weights.

    Raises:
        ValueError: a discrete or constrained site (named), an `init` of an unknown site or another
            shape.
        TypeError: a model that is no `BNN`, without an example.

    Reference: Unlu and Aitchison (2020), Gradient regularisation as approximate variational
    inference, first version.

    >>> from bayesnn import BNN, likelihoods, priors, subset
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
        super().__init__(model, example, init, scale)
        for name, site in self._sites.items():
            if site.support is not constraints.real:
                raise ValueError(
                    f"SharedVariance: site {name!r} is constrained to {site.support}, and shares no variance with "
                    "weights; give it a fixed or learned value, or use MeanField"
                )
        self.groups: dict[str, list[str]] = {}
        for name in self._sites:
            self.groups.setdefault(over(name), []).append(name)
        self.log_scale = nn.Parameter(torch.full_like(self.loc.detach()[: len(self.groups)], scale).log())

    def _by_site(self, scales: Tensor) -> dict[str, Tensor]:
        """{site: the scale of its group}."""
        return {name: scale for names, scale in zip(self.groups.values(), scales, strict=True) for name in names}

    def _fingerprint(self) -> str:
        return f"{super()._fingerprint()}; groups {self.groups}"
