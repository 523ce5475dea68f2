"""Whether the members of a rank-one ensemble differ, and whether their codes say who they are."""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from bayesnn.models.rank_one.layer import RankOne
from bayesnn.models.rank_one.network import RankOneNet

COLLAPSED = 0.1
"""Members whose mean vectors differ by less than this share of the noise of a
code are one member.
"""


class LayerDiversity(NamedTuple):
    """The spread of one layer's input-side vectors; E and Var are over codes.

    Attributes:
        between: standard deviation over members of E[r_hat_j], the root mean square over entries.
        within: standard deviation of r_hat_j for one member, the root mean square over members and
            entries; 0 without codes.
        kl: KL(q(z | r_j) || N(0, I)) in nats, the mean over members; 0 without codes.
    """

    between: float
    within: float
    kl: float


@torch.no_grad()
def diversity(net: RankOneNet) -> dict[str, LayerDiversity]:
    """The spread of the members' vectors r_hat, and of one member's draws, in each layer.

    No data are needed.

    Warns where codes have collapsed: with a heavy KL term q(z | r_j) becomes the prior for every
    j, so that all members are one and the ensemble is a noisy single network. For the disagreement
    of predictions, see `bayesnn.metrics.disagreement`.

    Args:
        net: of `batch_ensemble` or `latent_rank_one`.

    Raises:
        ValueError: a network of one member.

    >>> from torch import nn
    >>> from bayesnn.models import batch_ensemble
    >>> from bayesnn.models.rank_one import random_signs
    >>> net = batch_ensemble(nn.Linear(1000, 2), members=2, initial=random_signs())
    >>> round(diversity(net)[""].between, 1)
    1.0
    """
    if net.members < 2:
        raise ValueError("diversity: one member cannot differ from others; make the network with members=4")
    by_layer = {name: _of_layer(layer) for name, layer in net.layers.items()}
    collapsed = [name for name, one in by_layer.items() if one.within and one.between < COLLAPSED * one.within]
    if collapsed:
        warnings.warn(
            f"diversity: codes have collapsed in {len(collapsed)} of {len(by_layer)} layers ({', '.join(collapsed[:5])}"
            f"{', ...' if len(collapsed) > 5 else ''}): members differ there by less than {COLLAPSED} of a code's "
            "noise. Give RankOneEnsemble a smaller kl_weight (1 is Bayes' rule), or a longer code",
            stacklevel=2,
        )
    return by_layer


def _of_layer(layer: RankOne) -> LayerDiversity:
    code, r = layer.code, layer.r
    if code is None:
        return LayerDiversity(_between(r), 0.0, 0.0)
    mean, log_variance = code.moments(r)
    kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(-1).mean()
    noise = r.new_zeros(()) if code.bypassed else (log_variance.exp() @ code.decoder.weight.mT**2).mean().sqrt()
    return LayerDiversity(_between(code.vector(mean, r)), float(noise), float(kl))


def _between(vectors: Tensor) -> float:
    return float(vectors.var(0).mean().sqrt())
