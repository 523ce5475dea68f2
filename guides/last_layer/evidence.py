"""The log evidence of a neural linear model, with the inner minimisation over
the last layer left open.
"""

import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor, nn

from bayesnn.functional import Inputs, alone
from bayesnn.guides.last_layer.moments import rows_of
from bayesnn.models import NeuralLinear
from bayesnn.models.observe import check_target
from bayesnn.scales import Learned
from bayesnn.sites import log_density, sample_nodes


class LastLayerEvidence(nn.Module):
    """-log p(y) <= J(w) in nats, with equality at w = E[W | y]: trains body and scales of a
    `NeuralLinear`.

    With W integrated out, y_k ~ N(0, noise_k^2 I + Phi S_k Phi^T), S_k = diag(scale_k^2). Written
    with the last layer w as an open variable,

        J(w) = sum_k [ n log(noise_k sqrt(2 pi)) + |y_k - Phi w_k|^2 / (2 noise_k^2)
            + w_k^T S_k^-1 w_k / 2 +
                       log |I + S_k^1/2 Phi^T Phi S_k^1/2 / noise_k^2| / 2 ],

    J(w) = -log p(y) + 1/2 sum_k (w_k - m_k)^T (Phi^T Phi / noise_k^2 + S_k^-1) (w_k - m_k). So
    minimising over w, body and scales together has the optimum of the exact evidence, and a step
    needs a determinant but not the solution of the regression. With a `relative` scale all outputs
    share one determinant, and scale^2 is the paper's alpha.

    All data in one batch: the determinant couples them. The noise prior of the model, if any, is
    added. Call `LastLayerPosterior(model).fit(loader)` afterwards.

    Args:
        model: with `likelihoods.normal`, its noise and the prior's scale fixed or learned. It is a
            sub-module of the loss, and is trained.

    Parameters: `weight` [out, feature], initialised as by `nn.Linear`, and the model's.

    Shapes: (x, y [batch, out]) -> one number, the whole data's (the paper divides by their
    number).

    Raises:
        TypeError: a model of another kind.
        ValueError: another likelihood, a latent scale; a batch of fewer examples than the model's
            `size`; targets that do not fit.

    Reference: Fiedler, Lucia (2023), Improved uncertainty quantification for neural networks with
    Bayesian last layer.

    >>> from bayesnn import learned, likelihoods
    >>> body = nn.Sequential(nn.Linear(1, 8), nn.Tanh())
    >>> model = NeuralLinear(body, 8, 2, likelihoods.normal(learned(0.3)), scale=learned(7.0), relative=True)
    >>> loss = LastLayerEvidence(model)
    >>> loss(torch.zeros(5, 1), torch.zeros(5, 2)).shape
    torch.Size([])
    """

    def __init__(self, model: NeuralLinear) -> None:
        super().__init__()
        check_model("LastLayerEvidence", model)
        self.model = model
        self.weight = nn.Parameter(model.start())

    def forward(self, x: Inputs, y: Tensor) -> Tensor:
        """J in nats."""
        model = self.model
        phi = model.phi(x)
        if model.size not in (None, len(phi)):
            raise ValueError(
                f"LastLayerEvidence: a batch has {len(phi)} of {model.size} examples, but the evidence needs all at "
                "once; give one batch of all data, or train in batches with LastLayer and LastLayerELBO"
            )
        noise, prior = model.noise_scale(), model.matrix_prior()
        fitted = model.outputs_of_features(self.weight, phi)
        check_target(model.likelihood(fitted), y)
        likelihood = dist.Normal(fitted, noise, validate_args=False).log_prob(y).sum()
        squares = (self.weight / _scale(prior)).square().sum()
        return -likelihood + 0.5 * (squares + self._log_det(phi, _scale(prior), noise)) - _factors(model)

    def _log_det(self, phi: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        """sum_k log |I + S_k^1/2 Phi^T Phi S_k^1/2 / noise_k^2|."""
        gram = phi.mT @ phi
        one = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        shared = self.model.relative and _is_number(self.model.scale)
        # [1 or out, feature]
        ratio = (scale / noise.unsqueeze(-1))[:1] if shared else scale / noise.unsqueeze(-1)
        roots = torch.linalg.cholesky(one + ratio.unsqueeze(-1) * gram * ratio.unsqueeze(-2))
        return (len(noise) if shared else 1) * 2 * roots.diagonal(dim1=-2, dim2=-1).log().sum()


def check_model(owner: str, model: NeuralLinear) -> None:
    """Refuse a model whose last layer has no exact posterior."""
    if not isinstance(model, NeuralLinear):
        raise TypeError(f"{owner}: a NeuralLinear is needed, not {type(model).__name__}")
    if isinstance(model.scale, dist.Distribution):
        raise ValueError(f"{owner}: the prior's scale is latent; give a number or learned(...)")
    try:
        model.noise_scale()
    except ValueError as error:
        raise ValueError(f"{owner}: {error}; for others use LastLayer and LastLayerELBO") from None


def _is_number(scale: object) -> bool:
    held = scale.log_value if isinstance(scale, Learned) else scale
    return not isinstance(held, Tensor) or held.numel() == 1


def _scale(prior: dist.TorchDistribution) -> Tensor:
    rows = rows_of(prior)
    assert isinstance(rows, dist.Normal)
    scale: Tensor = rows.scale
    return scale


def _factors(model: NeuralLinear) -> Tensor:
    """The densities of point estimates, in nats."""
    with alone(), poutine.block(), poutine.trace() as traced:
        model.factors()
    densities = [log_density(node).sum() for node in sample_nodes(traced.trace.nodes).values()]
    return sum(densities, model.noise_scale().new_zeros(()))
