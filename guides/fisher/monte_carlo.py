"""The Fisher information by targets that are drawn from the model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pyro import poutine
from torch import Tensor

from bayesnn.functional import alone
from bayesnn.guides.fisher.protocol import BackwardPass
from bayesnn.guides.fisher.scores import check_draws, score
from bayesnn.likelihoods import Likelihood

if TYPE_CHECKING:
    from bayesnn.guides.variational_laplace.conditional import ConditionalSite


@dataclass(frozen=True)
class MonteCarloFisher:
    """The scores of targets y~ drawn from the model: E[g g^T] is the Fisher information, of every
    distribution.

    For a Laplace approximation R = score(y~) / sqrt(draws), one column a draw whatever the
    classes. For an ELBO g = d/dw sum_i log p(y~_i | w), one backward pass a draw; the gradient of
    g^2 is biased there: targets are drawn anew, but held when it is differentiated. For a model
    that is linear in its weights with a softmax it is zero in the mean, where dF/dw is not. Use it
    where no Fisher information is known, or with `curvature_grad=False`.

    Args:
        draws: targets to average over.

    Raises:
        ValueError: fewer draws than one.

    Reference: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
    approximate curvature.

    >>> from bayesnn import likelihoods
    >>> MonteCarloFisher(3).roots(likelihoods.categorical, torch.zeros(5, 2), torch.zeros(5)).shape
    torch.Size([5, 2, 3])
    """

    draws: int = 1

    def __post_init__(self) -> None:
        check_draws(self, self.draws)

    def roots(self, likelihood: Likelihood, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        """R [batch, out, draw]; y is not used."""
        with alone(), poutine.block():
            drawn = likelihood(outputs).sample((self.draws,))
        return torch.stack([score(likelihood, outputs, one) for one in drawn], -1) / self.draws**0.5

    def passes(self, sites: Sequence["ConditionalSite"]) -> Iterator[BackwardPass]:
        """The backward passes, one for each draw."""
        for _ in range(self.draws):
            with torch.no_grad():
                targets = [site.fn.sample() for site in sites]
            scores = [site.log_prob(target) for site, target in zip(sites, targets, strict=True)]
            yield BackwardPass(scores, [torch.full_like(one, self.draws**-0.5) for one in scores])
