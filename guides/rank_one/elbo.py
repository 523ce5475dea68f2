"""The ELBO of a rank-one ensemble: the mean over all members, in one pass."""

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence

from bayesnn.functional import Inputs, batch_size
from bayesnn.guides.common.closed_form_elbo import ClosedFormELBO
from bayesnn.guides.rank_one.guide import RankOneGuide
from bayesnn.models.checks import minibatch_scale
from bayesnn.models.inputs import check_inputs
from bayesnn.models.observe import check_target, likelihood_given
from bayesnn.models.rank_one import RankOneEnsemble, by_member, shared_batch, tile
from bayesnn.sites import base_of


class RankOneELBO(ClosedFormELBO):
    """-ELBO = 1 / M sum_j [w (KL_j - log p(r_j | z_j)) - size / batch sum_i
    log p(y_i | x_i, member j)] in nats.

    One draw of every member's codes or vectors, one pass of all members over the tiled batch, KL
    divergences in closed form. w is the model's `weight_of_kl`; as published for LP-BNN by
    default, so that loss / size is the published loss, mean cross entropy + 1 / (L + 1) sum of the
    layers' squared errors and KL divergences. For plain BatchEnsemble nothing but the cross
    entropy is left. The expectation over members of `Trace_ELBO`'s loss is this.

    Published learning rates of SGD are for the mean, loss / size: divide them by size, and
    multiply the weight decay by it. Adam needs no change.

    Here, as in the published training, the network may be in training mode: batch statistics and
    dropout are those of the tiled batch, and running statistics are updated. Prediction needs
    `model.eval()`.

    Args:
        kl_weight: a further factor of w, such as an annealed one; the product is what the loss's
            `metadata` and its repr, the guide and `to_arviz` say.
        share: every member sees its own share of the batch, batch / M examples, in place of all:
            the original training of BatchEnsemble, at a step's cost of one network and 1.5 times
            the epochs.

    Raises:
        TypeError: a model or guide of another kind.
        ValueError: no targets, targets that do not fit, a batch that the members cannot share
            equally (`shared_batch`), a latent scale of the likelihood, a negative weight; a
            network that moves the batch from the first axis before a converted layer (found by
            `RankOneNet.check` at the first inputs of each shape).

    Reference: Wen et al. (2020), BatchEnsemble; Dusenberry et al. (2020), Efficient and scalable
    Bayesian neural nets with rank-1 factors; Franchi et al. (2024), Encoding the latent posterior
    of Bayesian neural networks.

    >>> from torch import nn
    >>> from bayesnn import likelihoods
    >>> from bayesnn.models import batch_ensemble
    >>> net = batch_ensemble(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), members=4)
    >>> model = RankOneEnsemble(net, likelihoods.categorical, size=100)
    >>> loss = RankOneELBO()(model, RankOneGuide(model))
    >>> bool(loss(torch.zeros(6, 3), torch.tensor([0, 1, 0, 0, 1, 0])) > 0)
    True
    """

    def __init__(self, *, kl_weight: float = 1.0, share: bool = False) -> None:
        super().__init__(num_particles=1)
        if not 0 <= kl_weight < float("inf"):
            raise ValueError(f"RankOneELBO: kl_weight is a finite number from 0, not {kl_weight}")
        self.kl_weight, self.share = float(kl_weight), share

    def _negative_elbo(self, model: Any, guide: Any, x: Inputs, y: Tensor | None = None) -> Tensor:
        if not isinstance(model, RankOneEnsemble) or not isinstance(guide, RankOneGuide):
            raise TypeError(
                f"RankOneELBO: a RankOneEnsemble and a RankOneGuide themselves are needed, not {type(model).__name__} "
                f"and {type(guide).__name__}; use Trace_ELBO for others"
            )
        if y is None:
            raise ValueError("RankOneELBO: targets are needed, loss(x, y)")
        check_inputs(x)
        model.net.check_once(x)
        model.announce()
        member = torch.arange(model.members, device=model.like.device)
        scale = minibatch_scale(model.size, batch_size(x))
        posteriors = guide.distributions(member)
        vectors = model.vectors({site: q.rsample() for site, q in posteriors.items()}, member)
        fit = scale * self._log_likelihood(model, vectors, x, y)
        priors, weight = model.priors(), self.weight_in(model, guide, x)
        assert weight is not None  # there is an x
        latent = [divergence(q, priors[site]) for site, q in posteriors.items()]
        errors = (term for _, term in model.reconstructions(vectors, member))
        latent += [-term.weight * term.distribution.log_prob(term.observed) for term in errors]
        return (weight * torch.stack(latent).sum() / model.members - fit) if latent else -fit

    def _log_likelihood(self, model: RankOneEnsemble, vectors: dict[str, Tensor], x: Inputs, y: Tensor) -> Tensor:
        """sum_i log p(y_i | x_i, member), the mean over members; of a batch
        that they share each example once.
        """
        members = model.members
        if self.share:
            outputs = model.net.rows(shared_batch(x, members), vectors).unsqueeze(0)
        else:
            outputs = by_member(model.net.rows(tile(x, members), vectors), members)
        distribution = likelihood_given(model.likelihood, outputs, {}, name=model.name)
        check_target(distribution, y)
        return distribution.log_prob(y).sum() / len(outputs)


def divergence(q: dist.TorchDistribution, p: dist.TorchDistribution) -> Tensor:
    """KL(q || p) in nats, [*batch], of two normal or two Cauchy distributions with independent
    entries.

    For Cauchy distributions sum_i log[((g_i + h_i)^2 + (a_i - b_i)^2) / (4 g_i h_i)], which is
    symmetric: locations a and b, scales g and h.

    Raises:
        ValueError: other families.

    Reference: Chyzak, Nielsen (2019), A closed-form formula for the Kullback-Leibler divergence
    between Cauchy distributions.

    >>> divergence(dist.Cauchy(torch.zeros(2), 1.0).to_event(1), dist.Cauchy(torch.zeros(2), 1.0).to_event(1))
    tensor(0.)
    """
    axes = q.event_dim
    q, p = base_of(q), base_of(p, dist.ExpandedDistribution)
    if isinstance(q, dist.Normal) and isinstance(p, dist.Normal):
        each = kl_divergence(q, p)
    elif isinstance(q, dist.Cauchy) and isinstance(p, dist.Cauchy):
        each = torch.log(((q.scale + p.scale) ** 2 + (q.loc - p.loc) ** 2) / (4 * q.scale * p.scale))
    else:
        raise ValueError(
            f"RankOneELBO: KL({type(q).__name__} || {type(p).__name__}) has no closed form here; give the vectors a "
            "normal or Cauchy prior"
        )
    return each.sum(tuple(range(-axes, 0))) if axes else each
