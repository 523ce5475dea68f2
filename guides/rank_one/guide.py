"""The posterior of a rank-one ensemble: a mixture with one component a member."""

import math
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.handlers import param_site
from bayesnn.models.rank_one import RankOneEnsemble
from bayesnn.models.rank_one.layout import entry_name
from bayesnn.tempering import noted, noted_draws, of_model


class RankOneGuide(CheckedState):
    """q = 1 / M sum_j q_j: a member drawn at random, then its codes or vectors.

    - LP-BNN: q_j(z) = N(mean(r_j), diag(exp(log_variance(r_j)))), from the layer's own encoder; no
      parameters here.
    - rank-1 BNN: r ~ q(r_j, scale), s ~ q(s_j, scale), entries independent, of the prior's family,
      normal or Cauchy. The locations are the members' vectors in the network; a trained
      BatchEnsemble is where it can start. Scales are parameters of the guide. Draws of a Cauchy
      component have entries of any size: where there are more vectors than the data can hold to
      small scales, the divergence pulls scales to the prior's and predictions are noise.
    - BatchEnsemble: the member alone.

    Args:
        model: a `RankOneEnsemble`.
        scale: initial scales, for a model with a prior.

    Raises:
        TypeError: a model of another kind.
        ValueError: a prior that is neither normal nor Cauchy; a scale that is not positive.

    Reference: Dusenberry et al. (2020), Efficient and scalable Bayesian neural nets with rank-1
    factors; Franchi et al. (2024), Encoding the latent posterior of Bayesian neural networks.

    >>> from bayesnn import likelihoods
    >>> from bayesnn.models import latent_rank_one
    >>> net = latent_rank_one(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), members=4, latent=5)
    >>> guide = RankOneGuide(RankOneEnsemble(net, likelihoods.categorical, size=100))
    >>> {site: tuple(value.shape) for site, value in guide.draws(per_member=2).items()}
    {'member': (8,), '0.z': (8, 5), '2.z': (8, 5)}
    """

    def __init__(self, model: RankOneEnsemble, *, scale: float = 0.1) -> None:
        super().__init__()
        if not isinstance(model, RankOneEnsemble):
            raise TypeError(f"RankOneGuide: a RankOneEnsemble is needed, not {type(model).__name__}")
        if model.prior is not None and not isinstance(model.prior, (dist.Normal, dist.Cauchy)):
            raise ValueError(
                f"RankOneGuide: components are normal or Cauchy as the prior is, not {type(model.prior).__name__}; "
                "give the model dist.Normal(1.0, ...) or dist.Cauchy(1.0, ...)"
            )
        if not scale > 0:
            raise ValueError(f"RankOneGuide: the initial scale must be positive, not {scale}")
        self._model = (model,)
        held = [] if model.prior is None else [v for layer in model.net.layers.values() for v in (layer.r, layer.s)]
        self.log_scales = nn.ParameterList(torch.full_like(vector.detach(), math.log(scale)) for vector in held)

    @property
    def model(self) -> RankOneEnsemble:
        """The model that the guide approximates the posterior of."""
        return self._model[0]

    def distributions(self, member: Tensor) -> dict[str, dist.TorchDistribution]:
        """{site: q of it given the member} for all sites but the member's.

        Their batch shape is that of `member`.
        """
        by_site: dict[str, dist.TorchDistribution] = {}
        scales = iter(enumerate(self.log_scales))
        for name, layer in self.model.net.layers.items():
            if layer.code is not None:
                mean, log_variance = layer.code.moments(layer.r[member])
                q = dist.Normal(mean, (0.5 * log_variance).exp(), validate_args=False)
                by_site[self.model.site(entry_name(name, "z"))] = q.to_event(1)
            elif self.model.prior is not None:
                family = dist.Normal if isinstance(self.model.prior, dist.Normal) else dist.Cauchy
                for key, loc in (("r", layer.r), ("s", layer.s)):
                    i, log_scale = next(scales)
                    scale = param_site(f"RankOneGuide[{self.model.site(name)}].{i}", log_scale).exp()
                    q = family(loc[member], scale[member], validate_args=False)
                    by_site[self.model.site(entry_name(name, key))] = q.to_event(1)
        return by_site

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample a member and its sites; of the arguments, which are the
        model's, only the batch size is used.
        """
        model = self.model
        model.announce()
        site = model.site("member")
        values = {site: pyro.sample(site, dist.Categorical(model.like.new_ones(model.members) / model.members))}
        with model.weighted(*args):
            for name, q in self.distributions(values[site]).items():
                values[name] = pyro.sample(name, q)
        return values

    @torch.no_grad()
    def draws(self, per_member: int = 1, *, group_by_chain: bool = False) -> dict[str, Tensor]:
        """{site: [member * draw, *event]}: every member equally often, the first member's draws
        first.

        They carry the weight of the KL divergence to `to_arviz`, as the guide does.

        Args:
            per_member: draws of each member's codes or vectors; a BatchEnsemble has one of each.
            group_by_chain: {site: [member, draw, *event]} for
                `to_arviz(..., group_by_chain=True)`: members are chains.
        """
        if per_member < 1:
            raise ValueError(f"RankOneGuide.draws: at least one draw a member is needed, not {per_member}")
        members = self.model.members
        member = torch.arange(members, device=self.model.like.device).repeat_interleave(per_member)
        drawn = {self.model.site("member"): member}
        drawn.update({site: q.sample() for site, q in self.distributions(member).items()})
        if group_by_chain:
            drawn = {site: value.unflatten(0, (members, per_member)) for site, value in drawn.items()}
        return noted_draws(drawn, noted(self) or of_model(self.model))

    def undecayed(self) -> list[nn.Parameter]:
        """The log scales, which an optimiser should not decay."""
        return list(self.log_scales)

    def _fingerprint(self) -> str:
        sites = ", ".join(f"{site} {list(shape)}" for site, shape in self.model.sites.items())
        return f"{self.model.members} members, {sites}"
