"""One network drawn from an ensemble of rank-one members: the Pyro model of
BatchEnsemble, rank-1 BNN and LP-BNN.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.poutine.runtime import am_i_wrapped
from torch import Size, Tensor, nn

from bayesnn.functional import Inputs, batch_size, call, call_chunks, check_layers, map_draws, mode_dependent
from bayesnn.handlers import SurroundingPlates, param_site, prefix_of
from bayesnn.likelihoods import Likelihood
from bayesnn.models.checks import check_name, check_outside, checked_size
from bayesnn.models.inputs import check_inputs
from bayesnn.models.observe import observe
from bayesnn.models.rank_one.layout import entry_name
from bayesnn.models.rank_one.network import RankOneNet
from bayesnn.scales import moved


class Reconstruction(NamedTuple):
    """What a layer's code must explain: log p(r_j | z_j) times `weight`."""

    distribution: dist.TorchDistribution
    observed: Tensor
    weight: float


class RankOneEnsemble(nn.Module):
    """member ~ Uniform(1 ... M); y_i ~ likelihood(f(x_i; W with entries times s_j r_j^T)): one
    network of M.

    A draw is one member with its vectors, and the outputs are those of a plain network with that
    member's weights, so `predict`, `predictive` and `to_arviz` see an ordinary posterior; the
    mixture over draws is the ensemble.

    - `batch_ensemble(net)`: the member is the only site.
    - `batch_ensemble(net)` with a `prior`, the rank-1 BNN: sites "<layer>.r" [in] and "<layer>.s"
      [out] too, whose entries have this prior; the members are the components of the guide's
      mixture.
    - `latent_rank_one(net)`, LP-BNN: a site "<layer>.z" ~ N(0, I) for every layer,
      r_hat = decoder(z), and the member's vector r_j observed at
      "<layer>.reconstruction" ~ N(r_hat, 1 / 2) to the power 1 / (M in) (in its equal form without
      a constant); r_j is a trained parameter and counts as data here.

    The published loss of LP-BNN adds, for L layers, 1 / (L + 1) sum_l [sum_j KL_jl + mean_j
    |r_hat_jl - r_jl|^2 / in] to the *mean* of the cross entropy. Times `size` it is -ELBO of one
    network with its KL weighted by size M / (L + 1), thousands where Bayes' rule has 1: posteriors
    are pulled to the prior, and the reconstruction, with weight kl_weight / (M in), is all but
    free. `kl_weight=1` is Bayes' rule. The likelihood of a map is a sum over its pixels, the
    published loss their mean: there its weight is size * pixels * M / (L + 1), to be given.

    Fit it with `RankOneGuide` and `RankOneELBO`, all members in one pass; Pyro's own ELBOs see one
    random member a step. The model **owns and trains** `net`, itself a copy of yours.

    Args:
        net: of `batch_ensemble` or `latent_rank_one`.
        likelihood: outputs [*draw, batch, ...] -> distribution of y.
        size: examples in the training data, by which batches are scaled; None = each call is all
            data.
        prior: of the entries of r and s, one number: `dist.Normal(1.0, 0.1)` or
            `dist.Cauchy(1.0, 0.1)`.
        kl_weight: of latent vectors or codes, with the reconstruction in proportion; None = the
            published weight for codes, 1 for a `prior`.
        name: prefixes sites and plate with `name + "."`.

    Raises:
        TypeError: a net of another kind.
        ValueError: a prior for encoded vectors, or of more than one number; a size or weight out
            of range; a BatchNorm or dropout in training mode where a single member is evaluated
            (`RankOneELBO` evaluates all, and trains with them); inputs or targets that do not fit.

    Reference: Wen et al. (2020), BatchEnsemble; Dusenberry et al. (2020), Efficient and scalable
    Bayesian neural nets with rank-1 factors; Franchi et al. (2024), Encoding the latent posterior
    of Bayesian neural networks.

    >>> from bayesnn import likelihoods
    >>> from bayesnn.models import batch_ensemble
    >>> net = batch_ensemble(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), members=4)
    >>> model = RankOneEnsemble(net, likelihoods.categorical, size=100, prior=dist.Normal(1.0, 0.1))
    >>> list(model.sites)
    ['member', '0.r', '0.s', '2.r', '2.s']
    >>> model(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        net: RankOneNet,
        likelihood: Likelihood,
        *,
        size: int | None = None,
        prior: dist.TorchDistribution | None = None,
        kl_weight: float | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        if not isinstance(net, RankOneNet):
            raise TypeError(
                f"RankOneEnsemble: a network with members is needed, batch_ensemble(net) or latent_rank_one(net), not "
                f"{type(net).__name__}"
            )
        self.size = checked_size("RankOneEnsemble", size)
        check_name("RankOneEnsemble", name)
        if kl_weight is not None and not 0 < kl_weight < float("inf"):
            raise ValueError(f"RankOneEnsemble: kl_weight is a positive number, not {kl_weight}")
        if prior is not None and prior.shape():
            raise ValueError(
                f"RankOneEnsemble: the prior is that of one entry of r or s, but has the shape {tuple(prior.shape())}"
            )
        self.net = net
        self._layers = (net.layers,)
        self._mode_dependent = (mode_dependent(net),)
        self.encoded = any(layer.code is not None for layer in net.layers.values())
        if self.encoded and prior is not None:
            raise ValueError("RankOneEnsemble: encoded vectors have their prior, z ~ N(0, I); give no prior")
        self.likelihood, self.prior, self.kl_weight = likelihood, prior, kl_weight
        self.name = name
        self.local: frozenset[str] = frozenset()
        if isinstance(likelihood, nn.Module):  # it may have a learned scale
            likelihood.to(device=self.like.device, dtype=self.like.dtype)

    @property
    def like(self) -> Tensor:
        """A parameter, for its device and type."""
        return next(self.net.parameters())

    @property
    def members(self) -> int:
        """M."""
        return self.net.members

    @property
    def sites(self) -> dict[str, Size]:
        """{site name: event shape}: the member, and what is random of every layer."""
        own = {site: prior.event_shape for site, prior in self.priors().items()}
        return {self.site("member"): Size(), **own}

    def site(self, own: str) -> str:
        """A site's name with the model's prefix."""
        return prefix_of(self.name) + own

    def priors(self) -> dict[str, dist.TorchDistribution]:
        """{site: prior} of all sites but the member, one event each."""
        found: dict[str, dist.TorchDistribution] = {}
        for name, layer in self._layers[0].items():
            if layer.code is not None:
                zero = layer.r.new_zeros(layer.code.latent)
                found[self.site(entry_name(name, "z"))] = dist.Normal(zero, zero + 1, validate_args=False).to_event(1)
            elif self.prior is not None:
                entry = moved(self.prior, layer.r)
                found[self.site(entry_name(name, "r"))] = entry.expand(layer.r.shape[1:]).to_event(1)
                found[self.site(entry_name(name, "s"))] = entry.expand(layer.s.shape[1:]).to_event(1)
        return found

    def vectors(self, values: Mapping[str, Tensor], member: Tensor) -> dict[str, Tensor]:
        """{"<layer>.r" or "<layer>.s": [*lead, width]} that the values of the sites stand for.

        Args:
            values: {site: [*lead, *event]}.
            member: [*lead], whose vectors the codes belong to.
        """
        found = {}
        for name, layer in self._layers[0].items():
            if layer.code is not None:
                found[entry_name(name, "r")] = layer.code.vector(
                    self._value(values, entry_name(name, "z")), layer.r[member]
                )
            elif self.prior is not None:
                found.update({entry_name(name, key): self._value(values, entry_name(name, key)) for key in ("r", "s")})
        return found

    def reconstructions(self, vectors: Mapping[str, Tensor], member: Tensor) -> Iterator[tuple[str, Reconstruction]]:
        """(site, what is observed there) for every layer with codes; the weight
        is that without `kl_weight`.
        """
        for name, layer in self._layers[0].items():
            if layer.code is not None:
                # N(r; r_hat, 1 / 2) to a power is this density to another power, up to a constant,
                # which this lacks.
                fn = dist.Normal(vectors[entry_name(name, "r")], (2 * torch.pi) ** -0.5, validate_args=False).to_event(
                    1
                )
                weight = 1 / (torch.pi * self.members * layer.r.shape[1])
                # Detached: data that move with the parameters that explain them make no ELBO.
                yield (
                    self.site(entry_name(name, "reconstruction")),
                    Reconstruction(fn, layer.r[member].detach(), weight),
                )

    def weight_of_kl(self, x: "Inputs | None" = None, y: Tensor | None = None) -> float | None:
        """The weight of KL(q || p) in -ELBO, 1 for Bayes' rule.

        Without `size` the examples of x are all data; the published weight is then None where
        there is no x.
        """
        if self.kl_weight is not None:
            return float(self.kl_weight)
        if not self.encoded:
            return 1.0
        examples = self.size if self.size is not None or x is None else batch_size(x)
        return None if examples is None else examples * self.members / (len(self._layers[0]) + 1)

    def weighted(self, *args: Any) -> AbstractContextManager[Any]:
        """The scale of latent sites in a call with these arguments; in the
        guide it must be the same.
        """
        weight = self.weight_of_kl(*args)
        scaled: AbstractContextManager[Any] = nullcontext() if weight in (None, 1) else poutine.scale(scale=weight)
        return scaled

    def outputs(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """One member's outputs at x, [batch, ...]: one pass of a plain network, without Pyro."""
        return call(self.net.plain, self._dense(values), x)

    def outputs_of_chunks(self, values: Mapping[str, Tensor], parts: Sequence[Inputs]) -> Tensor:
        """`outputs` on consecutive parts of one set of inputs, joined; the
        weights are made once.
        """
        return call_chunks(self.net.plain, self._dense(values), parts)

    def announce(self) -> None:
        """Show the network's parameters to Pyro, so that `SVI` trains them."""
        if am_i_wrapped():
            for name, parameter in self.net.named_parameters():
                if parameter.requires_grad:
                    param_site(self.site(name), parameter)

    def sample(self, x: Inputs) -> Tensor:
        """Draw a member and its vectors, and return its outputs [batch, ...]; observes no y."""
        check_layers(self._mode_dependent[0], "RankOneEnsemble")
        check_inputs(x)
        self.announce()
        uniform = self.like.new_ones(self.members) / self.members
        with SurroundingPlates() as plates:
            values = {self.site("member"): pyro.sample(self.site("member"), dist.Categorical(uniform))}
            with self.weighted(x):
                values.update({site: pyro.sample(site, prior) for site, prior in self.priors().items()})
        check_outside(plates, "RankOneEnsemble", "its weights are")
        values = {site: self._aligned(site, value, plates.depth) for site, value in values.items()}
        self._reconstruct(values, x)
        return self._outputs_of_draws(values, x)

    def forward(self, x: Inputs, y: Tensor | None = None) -> Tensor:
        """Sample, then observe y (without y: sample it at the site "y"). Returns the outputs."""
        outputs = self.sample(x)
        observe(outputs, self.likelihood, y, size=self.size, name=self.name)
        return outputs

    def _reconstruct(self, values: Mapping[str, Tensor], x: Inputs) -> None:
        if self.encoded:
            member = values[self.site("member")]
            for site, (fn, observed, weight) in self.reconstructions(self.vectors(values, member), member):
                with self.weighted(x), poutine.scale(scale=weight):
                    # vectors, no data
                    pyro.sample(site, fn, obs=observed, infer={"is_auxiliary": True})

    def _dense(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        member = self._value(values, "member")
        return self.net.dense(member, self.vectors(values, member))

    def _value(self, values: Mapping[str, Tensor], own: str) -> Tensor:
        if self.site(own) not in values:
            raise ValueError(
                f"RankOneEnsemble: no value of {self.site(own)!r}, which is random; there are "
                f"{', '.join(values) or 'none'}"
            )
        return values[self.site(own)]

    def _aligned(self, site: str, value: Tensor, depth: int) -> Tensor:
        """With an axis for every plate around: `Predictive(parallel=True)` leaves some of size 1
        out, on the right.
        """
        lead = value.shape[: value.dim() - len(self.sites[site])]
        return value.reshape(lead + (1,) * (depth - len(lead)) + value.shape[len(lead) :])

    def _outputs_of_draws(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """[*lead, batch, ...]; the last of the values' leading axes, of size 1,
        is that of the data plate.
        """
        shapes = self.sites
        leads = [value.shape[: value.dim() - len(shapes[site])] for site, value in values.items()]
        lead = torch.broadcast_shapes(*leads)
        if not lead:
            return self.outputs(values, x)
        flat = {site: value.expand(lead + shapes[site]).reshape(-1, *shapes[site]) for site, value in values.items()}
        outputs = map_draws(lambda one: self.outputs(one, x), flat, vectorised=False)
        return outputs.reshape((lead[:-1] if lead[-1] == 1 else lead) + outputs.shape[1:])
