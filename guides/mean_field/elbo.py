"""An ELBO with the KL divergence in closed form."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from bayesnn.guides.common.closed_form_elbo import ClosedFormELBO
from bayesnn.guides.common.normal_kl import normal_kl
from bayesnn.guides.mean_field.layer_noise_tensors import NormalTensor
from bayesnn.sites import Node, latent_nodes, log_density, sample_nodes, weighted_sum

_NONE: Mapping[str, NormalTensor] = MappingProxyType({})


class MeanFieldELBO(ClosedFormELBO):
    """-ELBO = KL(q(w) || p(w)) - E_q[log p(y | w)] in nats, the expectation by reparameterised
    draws.

    Where prior and guide of a site are normal with independent entries, its KL is exact; elsewhere
    log q - log p at the draw. Nothing else is computed: no log q of a normal site, no validation
    of P-sized parameters. Scales of plates and `poutine.scale` hold for both terms.

    `MeanFieldELBO()(model, guide)` is a loss module, as with every ELBO of Pyro's; it works with
    `SVI` too.

    Args:
        num_particles: draws of the weights in one step.
        kl_weight: of all terms of latent sites; below 1 a tempered posterior, which is no longer
            Bayes' rule. It multiplies the weight that a model states (`LatentHead`); the product
            is in the loss module's `metadata` and its repr, and `to_arviz` keeps it.

    Raises:
        ValueError: a weight that is negative or not finite; a latent site of the model that the
            guide lacks (its name is given), or an auxiliary one of the guide; sites that cannot be
            reparameterised.

    Reference: Blundell, Cornebise, Kavukcuoglu, Wierstra (2015), Weight uncertainty in neural
    networks.
    """

    def __init__(self, num_particles: int = 1, *, kl_weight: float = 1.0) -> None:
        super().__init__(num_particles=num_particles)
        if not 0 <= kl_weight < float("inf"):
            raise ValueError(f"{type(self).__name__}: kl_weight is a finite number from 0, not {kl_weight}")
        self.kl_weight = float(kl_weight)

    def _negative_elbo(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        return self._mean_over_draws(model, guide, args, kwargs)

    def _mean_over_draws(
        self,
        model: Any,
        guide: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        at_means: Mapping[str, NormalTensor] = _NONE,
    ) -> Tensor:
        """The mean over `num_particles` draws; `at_means` has the sites that stay at their means.

        A guide that leaves the drawing to the layers fills it as it is called. Such a site is
        drawn here where its KL divergence has no closed form.
        """
        terms = [_of_one_draw(model, guide, args, kwargs, self.kl_weight, at_means) for _ in range(self.num_particles)]
        return terms[0] if len(terms) == 1 else torch.stack(terms).mean()


def _of_one_draw(
    model: Any,
    guide: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    kl_weight: float,
    at_means: Mapping[str, NormalTensor],
) -> Tensor:
    guided = poutine.trace(guide).get_trace(*args, **kwargs)
    modelled = poutine.trace(poutine.replay(model, trace=guided)).get_trace(*args, **kwargs)
    sites = sample_nodes(modelled.nodes)
    _check_sites(sites, guided.nodes)
    total: Tensor | float = 0.0
    for name, site in sites.items():
        if site["is_observed"]:
            total = total - weighted_sum(log_density(site), site)
        else:
            kl = _kl(guided.nodes[name], site, at_means.get(name))
            total = total + (kl if kl_weight == 1 else kl_weight * kl)
    assert isinstance(total, Tensor)
    return total


def _kl(guide_site: Any, model_site: Node, undrawn: NormalTensor | None) -> Tensor:
    scale = model_site["scale"]
    if model_site["mask"] is None and guide_site["mask"] is None and _same_number(scale, guide_site["scale"]):
        exact = normal_kl(guide_site["fn"], model_site["fn"])
        if exact is not None:
            return exact * scale
    if not guide_site["fn"].has_rsample:
        raise ValueError(f"MeanFieldELBO: site {guide_site['name']!r} cannot be reparameterised; use Trace_ELBO")
    value = guide_site["value"] if undrawn is None else undrawn.draw()
    log_q, log_p = guide_site["fn"].log_prob(value), model_site["fn"].log_prob(value)
    return weighted_sum(log_q, guide_site) - weighted_sum(log_p, model_site)


def _same_number(scale: float | Tensor, other: float | Tensor) -> bool:
    """Whether one number scales a whole site in model and guide; a scale for
    every element has no closed KL here.
    """
    if any(isinstance(one, Tensor) and one.dim() for one in (scale, other)):
        return False
    return bool(scale == other)


def _check_sites(modelled: Mapping[str, Any], guided: Mapping[str, Any]) -> None:
    latent, drawn = latent_nodes(modelled).keys(), latent_nodes(guided).keys()
    if latent - drawn:
        name = sorted(latent - drawn)[0]
        raise ValueError(
            f"MeanFieldELBO: the guide has no site {name!r}, which is latent in the model; make the guide with an "
            "example of the data, MeanField(model, x, y), or call the loss with y"
        )
    if drawn - latent:
        name = sorted(drawn - latent)[0]
        raise ValueError(f"MeanFieldELBO: the guide's site {name!r} is not in the model; use Trace_ELBO")
