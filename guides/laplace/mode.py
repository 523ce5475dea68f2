"""The distance of the weights at the centre from a maximum of the log joint density."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from bayesnn.functional import Inputs, call
from bayesnn.functional.transforms import transformable
from bayesnn.guides.fisher.exact import EXACT
from bayesnn.guides.laplace.data_pass import BatchTargets, DataPass
from bayesnn.guides.laplace.guide import Laplace
from bayesnn.guides.laplace.hessian import chosen_leaves
from bayesnn.guides.laplace.prior import normal_prior


class ModeDistance(NamedTuple):
    """The two distances that `distance_to_mode` gives."""

    gradient: float
    """|g|, in nats per unit of the weights."""
    deviations: float
    """(g^T (H + P)^-1 g)^1/2, in standard deviations of the posterior."""


def distance_to_mode(guide: Laplace, loader: Iterable[tuple[Inputs, Tensor]], *, progress: bool = True) -> ModeDistance:
    """|g| and (g^T (H + P)^-1 g)^1/2 with g = d log p(y, w) / dw at the guide's w*: is it a mode?

    The second, Newton's decrement d, does not depend on how weights are scaled. It is the
    distance, in standard deviations of the posterior, from w* to where the approximation with this
    gradient and this curvature has its own maximum; there the log joint density would be higher by
    d^2 / 2 nats. So

    - d below 1: w* is a mode for all that the posterior can tell;
    - d up to about (number of random weights)^1/2, as far as draws of the posterior lie from their
      mean: the network is not trained to the end under this prior; the covariance is usable,
      `log_evidence` is too low by about d^2 / 2;
    - d above that: the mode is elsewhere, and what the approximation says of the posterior's
      location is wrong. Train the random weights further under the model's own prior (the weight
      decay of training is often another one), give the guide `mode=`, or use predictions
      linearised at the network.

    |g| says how steep the log joint density is, in nats per unit, without a scale to compare it
    with.

    Args:
        guide: fitted.
        loader: the training data of the fit; one pass.
        progress: a tqdm bar.

    Reference: Boyd and Vandenberghe (2004), Convex optimization, 9.5, for the decrement.

    >>> from torch import nn
    >>> from bayesnn import BNN, likelihoods, priors, subset
    >>> net = nn.Linear(1, 1, bias=False)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> data = [(torch.ones(3, 1), torch.zeros(3, 1))]
    >>> at = Laplace(model, {"weight": torch.tensor([[0.5]])}).fit(data)
    >>> distance_to_mode(at, data)                                  # the mode is 0, the deviation 1 / 2
    ModeDistance(gradient=2.0, deviations=1.0)
    """
    posterior = guide.posterior  # raises before a fit
    gradient = _gradient(guide, loader, progress=progress)
    square = posterior.quadratic(gradient.to(guide.loc))
    return ModeDistance(float(gradient.norm()), float(square.clamp(min=0).sqrt()))


def _gradient(guide: Laplace, loader: Iterable[tuple[Inputs, Tensor]], *, progress: bool) -> Tensor:
    """The gradient of the log joint density, [param]."""
    rows = guide.fitted.curvature.rows
    data = DataPass(guide.model, loader, EXACT, guide.loc.device, progress)
    total = torch.zeros(rows.count, dtype=torch.double, device=guide.loc.device)

    def add(x: Inputs, targets: BatchTargets) -> None:
        leaves, values = chosen_leaves(rows)
        with torch.enable_grad(), transformable(guide.loc.device):
            log_prob = targets.log_prob(call(rows.net, values, x))
            gradients = torch.autograd.grad(log_prob, leaves, materialize_grads=True)
        total.add_(torch.cat(gradients))

    data(add, "distance to the mode")
    size = guide.model.size
    loc, precision = normal_prior(guide.model)
    share = 1.0 if size is None else size / data.seen
    return share * total - (precision * (guide.loc - loc)).double()
