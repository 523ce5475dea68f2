"""E[log p(y | f)] of normal outputs f in closed form, and what the formulas
need of variances or covariances.
"""

from pyro import distributions as dist
from torch import Tensor


def variances(mean: Tensor, spread: Tensor) -> Tensor:
    """The variances [batch, out] of outputs whose variances or covariances [batch, out, out] are
    given.

    >>> import torch
    >>> variances(torch.zeros(1, 2), torch.eye(2).unsqueeze(0))
    tensor([[1., 1.]])
    """
    return spread.diagonal(dim1=-2, dim2=-1).clamp(min=0) if spread.dim() > mean.dim() else spread


def normal_expectation(mean: Tensor, variance: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """sum_k [ log N(y_k; mean_k, noise_k^2) - variance_k / (2 noise_k^2) ], [batch], in nats:
    exact.

    Args:
        mean: of the outputs, [batch, out].
        variance: of the outputs, [batch, out].
        y: [batch, out].
        noise: standard deviation of y given its output, broadcasts to y.

    >>> import torch
    >>> one = torch.ones(1, 1)
    >>> normal_expectation(one, 0.5 * one, one, one)            # -0.5 log(2 pi) - 0.25
    tensor([-1.1689])
    """
    each = dist.Normal(mean, noise, validate_args=False).log_prob(y)
    return (each - 0.5 * variance / noise**2).sum(-1)


def heteroscedastic_expectation(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """sum_k -1/2 [ log(2 pi) + 2 m_s + exp(2 v_s - 2 m_s) ((y - m_f + 2 c)^2 + v_f) ], [batch]:
    exact.

    For y ~ N(f, exp(s)^2) with f ~ N(m_f, v_f) and s ~ N(m_s, v_s), the log of a standard
    deviation, of covariance c.

    Args:
        mean: of (f, s), [batch, 2 * out].
        variance: of (f, s), [batch, 2 * out], where c is 0; or their covariances
            [batch, 2 * out, 2 * out].
        y: [batch, out].

    References: Wu, Nowozin, Meeds, Turner, Hernández-Lobato, Gaunt (2019), Deterministic
    variational inference for robust Bayesian neural networks; Schmitt, Roth (2021), in the log of
    a variance.

    >>> import torch
    >>> heteroscedastic_expectation(torch.tensor([[0.7, -0.25]]), torch.tensor([[0.3, 0.05]]), torch.tensor([[1.1]]))
    tensor([-1.0880])
    """
    (m_f, m_s), (v_f, v_s) = mean.chunk(2, -1), variances(mean, variance).chunk(2, -1)
    if variance.dim() > mean.dim():
        targets = m_f.shape[-1]
        m_f = m_f - 2 * variance[..., :targets, targets:].diagonal(dim1=-2, dim2=-1)
    squares = (y - m_f).square() + v_f
    # The Gaussian log density at scale exp(m_s), whose squares have another expectation.
    each = dist.Normal(0.0, m_s.exp(), validate_args=False).log_prob(m_s.new_zeros(m_s.shape))
    return (each - 0.5 * (2 * v_s - 2 * m_s).exp() * squares).sum(-1)
