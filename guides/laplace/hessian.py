"""The exact Hessian of the negative log likelihood, for small subsets."""

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from bayesnn.curvature import JacobianRows
from bayesnn.functional import Inputs, call
from bayesnn.functional.transforms import transformable
from bayesnn.guides.laplace.data_pass import BatchTargets, DataPass
from bayesnn.guides.laplace.full import Full, FullPosterior

VECTORS = 16
"""Rows of the Hessian in one backward pass."""


class Hessian(Full):
    """H = -sum_i d^2 log p(y_i | f(x_i; w)) / dw^2 at w*, [param, param], exact: for up to a few
    thousand weights.

    It has the curvature of the network itself, sum_i (d log p / df) d^2 f / dw^2, which the
    Gauss-Newton matrix leaves out; the two are equal where f is linear in the random weights and y
    has an exponential family with f its natural parameter. It may be indefinite; H + P is positive
    definite at a maximum of the log joint density.

    A fit takes two to three plain training epochs for every weight, a hundredth of that for those
    of a last layer (LeNet). A whole batch passes the network at once: in the loader, batches of
    some ten to a hundred examples. The `fisher` of the guide is not used.

    Raises:
        ValueError: H + P is not positive definite; a layer that cannot be differentiated twice.
        MemoryError: it needs more memory than there is.

    Reference: MacKay (1992), A practical Bayesian framework for backpropagation networks; Martens
    (2020), New insights and perspectives on the natural gradient method, on the two matrices.

    >>> from torch import nn
    >>> from bayesnn import BNN, likelihoods, priors, subset
    >>> from bayesnn.guides import Laplace
    >>> net = nn.Linear(1, 1, bias=False)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> Laplace(model, structure=Hessian).fit([(torch.ones(3, 1), torch.zeros(3, 1))]).covariance
    tensor([[0.2500]])
    """

    uses_fisher: ClassVar[bool] = False

    @override
    def collect(self, data: DataPass) -> None:
        super().collect(data)
        matrix = self.H
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("Hessian: the second derivatives of the log likelihood are not finite")
        if bool((matrix - matrix.mT).abs().max() > 1e-3 * matrix.abs().max()):
            raise ValueError(
                "Hessian: the matrix of second derivatives is not symmetric, so a layer cannot be differentiated "
                "twice; use structure=Full"
            )
        matrix += matrix.mT.clone()
        matrix /= 2

    @override
    def add(self, x: Inputs, targets: BatchTargets) -> None:
        self.H += hessian(self.rows, x, targets).to(self.dtype)

    @torch.no_grad()
    def spectrum(self, precision: Tensor) -> Tensor:
        """The eigenvalues of P^-1/2 H P^-1/2; some may be negative, above -1."""
        root = precision.sqrt().to(self.dtype)
        values = torch.linalg.eigvalsh(self.H / root / root.unsqueeze(-1)).double()
        if values[0] <= -1:
            self._refuse(precision, 1.0)
        return values

    def log_ratio(self, precision: Tensor) -> Tensor:
        """log |H + P| - log |P|, by a Cholesky factor."""
        root, failed = torch.linalg.cholesky_ex(self.H.double() + torch.diag(precision))
        if bool(failed):
            self._refuse(precision.detach(), 1.0)
        return 2 * root.diagonal().log().sum() - precision.log().sum()

    @torch.no_grad()
    @override
    def posterior(self, precision: Tensor, scale: float) -> FullPosterior:
        if bool(torch.linalg.cholesky_ex(scale * self.H.double() + torch.diag(precision))[1]):
            self._refuse(precision, scale)
        return super().posterior(precision, scale)

    def _refuse(self, precision: Tensor, scale: float) -> None:
        smallest = torch.linalg.eigvalsh(scale * self.H.double() + torch.diag(precision))[0]
        raise ValueError(
            f"Hessian: the precision H + P is not positive definite: its smallest eigenvalue is {smallest.item():.3g}, "
            "so the weights are not at a maximum of the log joint density (see distance_to_mode); train them to one "
            "under this prior, give mode=, narrow the prior, or use structure=Full, whose matrix is never indefinite"
        )


def hessian(rows: JacobianRows, x: Inputs, targets: BatchTargets) -> Tensor:
    """The Hessian of the negative log likelihood of one batch, [param, param]."""
    leaves, values = chosen_leaves(rows)
    with torch.enable_grad(), transformable(leaves[0].device):
        loss = -targets.log_prob(call(rows.net, values, x))
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
        gradient = torch.cat(gradients)
    if not gradient.requires_grad:
        return gradient.new_zeros(rows.count, rows.count)
    numbers = torch.arange(rows.count, device=gradient.device).split(VECTORS)
    return torch.cat([_rows(gradient, leaves, part) for part in numbers])


def chosen_leaves(rows: JacobianRows) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The chosen entries of every parameter as a leaf, [entry], and the full
    tensors that contain them.
    """
    leaves, values = [], {}
    with torch.enable_grad():
        for name, chosen in rows.index.items():
            flat = rows.values[name].detach().flatten()
            leaf = (flat if chosen is None else flat[chosen]).clone().requires_grad_()
            leaves.append(leaf)
            full = leaf if chosen is None else flat.index_put((chosen,), leaf)
            values[name] = full.reshape(rows.values[name].shape)
    return leaves, values


def _rows(gradient: Tensor, leaves: list[Tensor], numbers: Tensor) -> Tensor:
    """Some rows of the Hessian, [row, param]."""
    seeds = torch.zeros(len(numbers), len(gradient), dtype=gradient.dtype, device=gradient.device)
    seeds.scatter_(1, numbers.unsqueeze(1), 1)
    try:
        parts = torch.autograd.grad(
            gradient, leaves, seeds, retain_graph=True, is_grads_batched=True, materialize_grads=True
        )
        return torch.cat(parts, 1)
    except (RuntimeError, NotImplementedError):  # a layer without a batching rule
        rows = [
            torch.autograd.grad(gradient, leaves, seed, retain_graph=True, materialize_grads=True) for seed in seeds
        ]
        return torch.stack([torch.cat(row) for row in rows])
