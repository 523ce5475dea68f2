"""The empirical Fisher: the squares of the training data's own scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from bayesnn.guides.fisher import signs
from bayesnn.guides.fisher.protocol import BackwardPass
from bayesnn.guides.fisher.scores import check_draws, score, unit_rows
from bayesnn.likelihoods import Likelihood

if TYPE_CHECKING:
    from bayesnn.guides.variational_laplace.conditional import ConditionalSite


@dataclass(frozen=True)
class EmpiricalFisher:
    """sum_i g_i g_i^T with the scores g_i of the labels themselves.

    For a Laplace approximation R = score(y), one column. For an ELBO g = d/dw sum_i xi_i
    log p(y_i | w) with random signs xi, which take the products g_i g_j of different examples out:
    they would make it depend on the batch size.

    It is neither the Fisher information nor an estimate of it: where the network fits its data the
    scores vanish and the posterior stays at the prior.

    Args:
        draws: for ELBOs, sets of signs to average over.
        each: for ELBOs, one backward pass for each example in the place of signs: no noise, for
            small batches.

    Raises:
        ValueError: fewer draws than one.

    Reference: Kunstner, Balles, Hennig (2019), Limitations of the empirical Fisher approximation.

    >>> import torch
    >>> from bayesnn import likelihoods
    >>> EmpiricalFisher().roots(likelihoods.categorical, torch.zeros(1, 2), torch.tensor([0]))
    tensor([[[ 0.5000],
             [-0.5000]]])
    """

    draws: int = 1
    each: bool = False

    def __post_init__(self) -> None:
        check_draws(self, self.draws)

    def roots(self, likelihood: Likelihood, outputs: Tensor, y: Tensor) -> Tensor:
        """R [batch, out, 1]: without noise, whatever `draws` and `each`."""
        return score(likelihood, outputs, y).unsqueeze(-1)

    def passes(self, sites: Sequence["ConditionalSite"]) -> Iterator[BackwardPass]:
        """The backward passes: one for each draw, or one batched pass for each site."""
        scores = [site.log_prob(site.value.detach()) for site in sites]
        if self.each:
            for one, site in zip(scores, sites, strict=True):
                weights = sum(block.mean.numel() for block in site.blocks)
                yield BackwardPass([one], [unit_rows(one, weights, site.name)], batched=True)
            return
        for _ in range(self.draws):
            yield BackwardPass(scores, [signs.random_signs(one) * self.draws**-0.5 for one in scores])
