"""Variational inference with the log likelihood expanded at the mean: no weight is drawn."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bayesnn.guides.common.closed_form_elbo import ClosedFormELBO
from bayesnn.guides.fisher.probes import FisherProbes
from bayesnn.guides.fisher.protocol import BackwardPass, Curvature, check_way
from bayesnn.guides.variational_laplace.kl import block_kl
from bayesnn.guides.variational_laplace.means import Block, at_means
from bayesnn.guides.variational_laplace.model import (
    at_values,
    check_second_derivatives,
    conditionals,
    log_likelihood,
)


class VariationalLaplaceELBO(ClosedFormELBO):
    """-ELBO ~ -log p(y | m) + 1/2 tr(S F(m)) + lambda KL(q(w) || p(w)) in nats, for q(w) = N(w; m,
    S).

    The expected log likelihood to second order around the mean, with the Fisher information F in
    the place of the Hessian: at the mean of q it is the log likelihood, a penalty on squared
    gradients weighted by the posterior's variances, and the KL in closed form. Exact for models
    that are linear in normal weights with normal noise. At fixed m the best variances of a
    diagonal S are 1 / (F / lambda + 1 / prior variance): for lambda = 1 those of a diagonal
    Laplace approximation.

    For any Pyro model and any guide of `Normal` and `MultivariateNormal` sites, the latter being
    blocks with full covariance: `MeanField`, `SharedVariance`, a handwritten guide, `AutoNormal`,
    `AutoMultivariateNormal`. The guide is evaluated at its means. Scales of plates and masks hold
    for every term, so that in the mean the loss does not depend on the batch size; several
    observed sites may have different ones. A prior that depends on other latent sites gets a
    Fisher term of its own. Constrained sites, such as a scale under a half-Cauchy prior, are
    expanded in unconstrained space, where the guide is normal: the log prior gets log |dv/du|, and
    without a closed form the KL is log q - log p at one draw.
    `VariationalLaplaceELBO()(model, guide)` is a loss module; it works with `SVI` too.

    Args:
        curvature: how F is had: `FisherProbes()` (unbiased in value and gradient, one backward
            pass), `MonteCarloFisher()`, `EmpiricalFisher()`, `ExactFisher()` of
            `bayesnn.guides.fisher`, or an object of your own with a method `passes`. None:
            `FisherProbes()`.
        kl_weight: lambda; below 1 a tempered posterior. It multiplies the weight that a model
            states (`LatentHead`); the product is in the loss module's `metadata` and its repr, and
            `to_arviz` keeps it.
        curvature_grad: let the penalty move the means. Without, the means go to the mode and the
            variances to those of a Laplace approximation there, at the cost of one backward pass
            less.

    Raises:
        ValueError: latent sites that are neither normal nor bijections of normal ones, discrete,
            or missing in guide or model (named); a site that guide and model scale differently; a
            distribution without a known Fisher information.
        TypeError: means in half precision: keep the guide in float32 and use `torch.autocast`.
        RuntimeError: an operation of the network without second derivatives (named).

    Reference: Unlu and Aitchison (2021), Gradient regularization as approximate variational
    inference.

    >>> from torch import nn
    >>> from bayesnn import BNN, likelihoods, priors, subset
    >>> from bayesnn.guides import MeanField
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=100)
    >>> loss = VariationalLaplaceELBO(kl_weight=0.5)(model, MeanField(model))
    >>> bool(loss(torch.zeros(5, 3), torch.tensor([0, 1, 1, 0, 1])) > 0)
    True
    """

    def __init__(
        self, curvature: Curvature | None = None, *, kl_weight: float = 1.0, curvature_grad: bool = True
    ) -> None:
        super().__init__(num_particles=1)
        if not 0 < kl_weight < float("inf"):
            raise ValueError(
                f"VariationalLaplaceELBO: the weight of the KL must be positive and finite, not {kl_weight}"
            )
        self.curvature: Curvature = FisherProbes() if curvature is None else curvature
        check_way("VariationalLaplaceELBO", "curvature", self.curvature, Curvature)
        self.kl_weight = float(kl_weight)
        self.curvature_grad = curvature_grad

    @property
    def options(self) -> dict[str, str | float]:
        """The curvature, and whether it moves the means."""
        return {"curvature": str(self.curvature), "curvature_grad": str(self.curvature_grad)}

    def _negative_elbo(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        with torch.enable_grad():
            loss = self._expanded(model, guide, args, kwargs)
        return loss if torch.is_grad_enabled() else loss.detach()

    def _expanded(self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        guided, blocks = at_means(guide, args, kwargs)
        sites = at_values(model, guided, blocks, args, kwargs)
        total = sum((block_kl(block, sites) for block in blocks), blocks[0].mean.new_zeros(()))
        total = self.kl_weight * total - log_likelihood(sites)
        for one in self.curvature.passes(conditionals(sites, blocks)):
            if one.outputs:
                total = total + 0.5 * self._penalty(one, blocks)
        return total

    def _penalty(self, one: BackwardPass, blocks: Sequence[Block]) -> Tensor:
        """sum g^T S g over blocks, of one backward pass."""
        gradients = torch.autograd.grad(
            one.outputs,
            [block.mean for block in blocks],
            one.cotangents,
            create_graph=self.curvature_grad,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=one.batched,
        )
        pairs = [(block, g) for block, g in zip(blocks, gradients, strict=True) if g is not None]
        if self.curvature_grad:
            check_second_derivatives([g for _, g in pairs], [block.mean for block in blocks])
        return sum((block.variance_along(g) for block, g in pairs), torch.zeros((), device=blocks[0].mean.device))
