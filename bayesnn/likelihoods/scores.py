"""Standard deviations of the scores d log p(y | f) / df, family by family: their squares are the
Fisher information.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class IndependentOutputs(nn.Module):
    """A likelihood with a diagonal Fisher information.

    It gives the standard deviations of its scores, whose squares are the diagonal.
    """

    def score_deviation(self, outputs: Tensor) -> Tensor:
        """The standard deviation of d log p(y | f) / df_k under y ~ p(y | f), [batch, out]."""
        raise NotImplementedError

    def fisher(self, outputs: Tensor) -> Tensor:
        """diag(score_deviation^2), [batch, out, out]."""
        return torch.diag_embed(self.score_deviation(outputs).square())

    def fisher_root(self, outputs: Tensor) -> Tensor:
        """diag(score_deviation), [batch, out, out]."""
        return torch.diag_embed(self.score_deviation(outputs))


def bernoulli_logit(logits: Tensor) -> Tensor:
    """sqrt(p (1 - p)) in the logit, with all digits where p is 0 or 1 up to rounding.

    >>> bernoulli_logit(torch.tensor(0.0))
    tensor(0.5000)
    """
    return (0.5 * (F.logsigmoid(logits) + F.logsigmoid(-logits))).exp()


def student_t_location(df: Tensor, scale: Tensor) -> Tensor:
    """sqrt((df + 1) / (df + 3)) / scale in the location of a Student t.

    Reference: Lange, Little, Taylor (1989), Robust statistical modeling using the t distribution.

    >>> student_t_location(torch.tensor(5.0), torch.tensor(1.0)) ** 2
    tensor(0.7500)
    """
    return ((df + 1) / (df + 3)).sqrt() / scale


def negative_binomial_log_mean(mean: Tensor, concentration: Tensor) -> Tensor:
    """sqrt(m r / (m + r)) in the log of the mean m of a negative binomial of concentration r.

    >>> negative_binomial_log_mean(torch.tensor(2.0), torch.tensor(2.0))
    tensor(1.)
    """
    return (mean * concentration / (mean + concentration)).sqrt()
