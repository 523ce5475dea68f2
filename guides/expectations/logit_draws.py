"""E[log softmax(z)_y] of normal logits z ~ N(m, V): by draws of logits, and a
probit approximation.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesnn.guides.expectations.output_covariance import covariance_root
from bayesnn.likelihoods.expectations import variances


class LogitDraws:
    """m_y - mean_s log sum_k exp(z_sk), z_s ~ N(m, V), [batch]: E[log softmax(z)_y] without bias.

    V is diagonal or full. Draws come in antithetic pairs m +- L e, L L^T = V. Derivatives are
    unbiased too: -E p_k in m_k, and by Price's theorem -E[diag(p) - p p^T] / 2 in V, whose noise
    stays bounded as V goes to 0.

    Args:
        draws: an even number.

    References: Schmitt, Roth (2021); Price (1958), A useful theorem for nonlinear devices having
    Gaussian inputs.

    >>> LogitDraws(2)(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]))
    tensor([-0.6931])
    """

    def __init__(self, draws: int = 64) -> None:
        if draws < 2 or draws % 2:
            raise ValueError(f"LogitDraws: draws come in pairs, an even number from 2, not {draws}")
        self.draws = draws

    def __call__(self, mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
        """Args: mean [batch, class], variance [batch, class] or covariance
        [batch, class, class], labels [batch].
        """
        own = mean.gather(-1, y.long().unsqueeze(-1)).squeeze(-1)
        return own - _MeanLogSumExp.apply(mean, variance, self.draws)

    def __repr__(self) -> str:
        return f"LogitDraws({self.draws})"


class _MeanLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, variance: Tensor, draws: int) -> Tensor:
        noise = torch.randn((draws // 2, *mean.shape), dtype=mean.dtype, device=mean.device)
        full = variance.dim() > mean.dim()
        if full:
            noise = torch.einsum("bij,dbj->dbi", covariance_root(variance), noise)
        else:
            noise.mul_(variance.sqrt())
        logits = torch.cat([mean + noise, mean - noise])
        largest = logits.amax(-1, keepdim=True)
        powers = logits.sub_(largest).exp_()
        total = powers.sum(-1, keepdim=True)
        if any(ctx.needs_input_grad):
            p = powers.div_(total)
            first = p.mean(0)
            if full:
                spread = torch.diag_embed(first).sub_(torch.einsum("dbi,dbj->bij", p, p), alpha=1 / len(p))
            else:
                spread = first - p.square_().mean(0)
            ctx.save_for_backward(first, spread)
        return (total.log() + largest).squeeze(-1).mean(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        first, spread = ctx.saved_tensors
        return gradient.unsqueeze(-1) * first, 0.5 * gradient.reshape(-1, *[1] * (spread.dim() - 1)) * spread, None


def probit_score(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """log softmax(m / sqrt(1 + pi/8 v))_y, [batch]: the log of the probit prediction.

    It approximates log E[softmax(z)_y], which lies above E[log softmax(z)_y]: cheap, and trains
    the prediction itself, but no lower bound of the evidence. Arguments as of `LogitDraws`.

    Reference: Gibbs (1998), Bayesian Gaussian processes for regression and classification.

    >>> probit_score(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0]))
    tensor([-0.6931])
    """
    scores = (mean / (1 + math.pi / 8 * variances(mean, variance)).sqrt()).log_softmax(-1)
    return scores.gather(-1, y.long().unsqueeze(-1)).squeeze(-1)
