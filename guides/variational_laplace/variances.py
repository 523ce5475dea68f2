"""The variances of a normal guide in closed form."""

from collections.abc import Iterable
from typing import Any

import torch

from bayesnn import tempering
from bayesnn.guides.fisher.protocol import Curvature, check_way
from bayesnn.guides.mean_field.guide import MeanField
from bayesnn.guides.mean_field.shared_variance import SharedVariance
from bayesnn.guides.variational_laplace.diagonal import of_model, of_network
from bayesnn.models import BNN
from bayesnn.sites import from_vector, to_vector


@torch.no_grad()
def fit_variances(
    guide: MeanField | SharedVariance,
    loader: Iterable[Any],
    *,
    kl_weight: float = 1.0,
    curvature: Curvature | None = None,
) -> Any:
    """s_j^2 = 1 / (F_j / lambda + P_j): set the variances to the optimum of the ELBO at the
    present means.

    F is the diagonal of the Fisher information of all training data, P the prior's precision. A
    variance that a group of weights shares takes the means of F and P over the group. Then the
    ELBO of variational Laplace is, for lambda = 1, the log evidence of a diagonal Laplace
    approximation at the means, and the variances are its own.

    Args:
        guide: its means stay, its `log_scale` is set. The priors must be normal.
        loader: batches of the training data, each example once; one pass. For a model that is no
            `BNN`: arguments of its calls, in batches of one size.
        kl_weight: lambda, that of the ELBO.
        curvature: as in `VariationalLaplaceELBO`, `FisherProbes(10)` for one. None: exact; of a
            `BNN` layer by layer, as `Laplace` does, of other models by `ExactFisher()`.

    Returns:
        the guide.

    Raises:
        ValueError: as `Laplace.fit` or `VariationalLaplaceELBO`; a KL weight that is not positive.
        TypeError: another guide.

    >>> from torch import nn
    >>> from bayesnn import likelihoods, priors, subset
    >>> net = nn.Linear(1, 1, bias=False)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> guide = fit_variances(MeanField(model), [(torch.ones(3, 1), torch.zeros(3, 1))])
    >>> guide.log_scale.exp() ** 2                                  # 1 / (3 + 1)
    tensor([0.2500], grad_fn=<PowBackward0>)
    """
    check_guide(guide)
    if not kl_weight > 0:
        raise ValueError(f"fit_variances: the weight of the KL must be positive, not {kl_weight}")
    if curvature is not None:
        check_way("fit_variances", "curvature", curvature, Curvature)
    model, shapes = guide.model, guide.shapes
    if isinstance(model, BNN) and curvature is None:
        information, prior = of_network(model, from_vector(guide.loc, shapes), loader)
    else:
        information, prior = of_model(model, guide, loader, curvature)
    precision = information / kl_weight + prior
    if isinstance(guide, SharedVariance):
        of_site = from_vector(precision, shapes)
        precision = torch.stack([to_vector(of_site, members).mean() for members in guide.groups.values()])
    guide.log_scale.copy_(-0.5 * precision.log())
    tempering.note(guide, tempering.of_weight(tempering.kl_weight(float(kl_weight), model)))
    return guide


def check_guide(guide: object) -> None:
    """Refuse a guide in which the variances cannot be located."""
    if not isinstance(guide, (MeanField, SharedVariance)):
        raise TypeError(f"fit_variances: the guide must be a MeanField or a SharedVariance, not {type(guide).__name__}")
