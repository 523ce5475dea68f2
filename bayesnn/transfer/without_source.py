"""Leave-one-out densities of the target's own examples without any source: what
a source has to beat.
"""

import torch
from torch import Tensor


def without_source(y: Tensor, *, classes: int = 0) -> Tensor:
    """log p(y_i | y_-i) in nats, [batch], of one distribution for all examples, whatever their x.

    For real targets y ~ N(m, s^2) with the prior p(m, s) = 1 / s: y_i given the others is
    Student-t with n - 2 degrees of freedom, location their mean and scale sqrt(n / (n - 1)) times
    their standard deviation. For labels (k_c + 1 / classes) / n, where k_c of the others have the
    same label: a Dirichlet prior worth one example.

    Args:
        y: [batch]: at least three numbers, or labels.
        classes: how many classes there are; 0 for real targets.

    Raises:
        ValueError: fewer than three targets.

    Reference: Gelman et al. (2013), Bayesian Data Analysis, sections 3.2 and 3.4.

    >>> without_source(torch.tensor([0, 0, 1]), classes=2).exp()      # 1.5 / 3, 1.5 / 3, 0.5 / 3
    tensor([0.5000, 0.5000, 0.1667], dtype=torch.float64)
    """
    n = len(y)
    if n < 3:
        raise ValueError(f"without_source: at least three targets are needed, not {n}")
    if classes:
        same = torch.bincount(y.long(), minlength=classes)[y.long()] - 1
        return ((same + 1 / classes) / n).double().log()
    y = y.double()
    mean = (y.sum() - y) / (n - 1)
    squares = (y.square().sum() - y.square()) - (n - 1) * mean.square()
    scale = (squares / (n - 2) * n / (n - 1)).clamp(min=torch.finfo(torch.double).tiny).sqrt()
    return torch.distributions.StudentT(torch.tensor(n - 2.0, dtype=torch.double), mean, scale).log_prob(y)
