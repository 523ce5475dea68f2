"""The Fisher information by random signs through a root of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from pyro import poutine
from torch import Tensor

from bayesnn.functional import alone
from bayesnn.guides.fisher import signs
from bayesnn.guides.fisher.exact import check_fisher, fisher_root
from bayesnn.guides.fisher.protocol import BackwardPass
from bayesnn.guides.fisher.rules import RULES, Rule, rule_of
from bayesnn.guides.fisher.scores import check_draws
from bayesnn.likelihoods import Likelihood
from bayesnn.sites import base_of

if TYPE_CHECKING:
    from bayesnn.guides.variational_laplace.conditional import ConditionalSite


@dataclass(frozen=True)
class FisherProbes:
    """g = sum_i J_i^T A_i xi_i with A_i A_i^T = L_i and random signs xi: E[g g^T] = sum_i J_i^T
    L_i J_i = F.

    For a Laplace approximation R = A xi / sqrt(draws), one column a draw whatever the classes,
    without the matrix L where the distribution's rule is known. For an ELBO one backward pass for
    all examples and classes; unbiased for F *and*, since A_i keeps its graph, for dF/dw.

    Args:
        draws: probes to average over.
        rules: Fisher information of further distributions, {class: rule}; see
            `guides/fisher/rules.py`.

    Raises:
        ValueError: fewer draws than one; a distribution of which no Fisher information is known.

    Reference: Hutchinson (1990), A stochastic estimator of the trace of the influence matrix for
    Laplacian smoothing splines.

    >>> from bayesnn import likelihoods
    >>> R = FisherProbes().roots(likelihoods.normal(0.5), torch.zeros(1, 2), torch.zeros(1, 2))
    >>> R.abs()
    tensor([[[2.],
             [2.]]])
    """

    draws: int = 1
    rules: Mapping[type, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_draws(self, self.draws)

    def roots(self, likelihood: Likelihood, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        """R [batch, out, draw]; y is not used."""
        probes = self._by_rules(likelihood, outputs)
        if probes is None:
            check_fisher(likelihood)
            root = fisher_root(likelihood, outputs)
            probes = [(root * signs.random_signs(root[:, :1])).sum(-1) for _ in range(self.draws)]
        return torch.stack(probes, -1) * self.draws**-0.5

    def _by_rules(self, likelihood: Likelihood, outputs: Tensor) -> list[Tensor] | None:
        """[batch, out] of each draw: through the parameters of the distribution
        back to the outputs.
        """
        with alone(), torch.enable_grad(), poutine.block():
            at = outputs.detach().requires_grad_()
            fn = base_of(likelihood(at))
            rule = rule_of(fn, {**RULES, **self.rules})
            reaching = []
            for parameter, root in [] if rule is None else rule(fn):
                if parameter.requires_grad and _depends(parameter, at):
                    if root is None:
                        return None
                    reaching.append((parameter, root))
            if not reaching:
                return None
            probes = []
            for _ in range(self.draws):
                cotangents = [root(signs.random_signs(parameter)) for parameter, root in reaching]
                parameters = [parameter for parameter, _ in reaching]
                (gradient,) = torch.autograd.grad(parameters, at, cotangents, retain_graph=True)
                probes.append(gradient.flatten(1))
        return probes

    def passes(self, sites: Sequence["ConditionalSite"]) -> Iterator[BackwardPass]:
        """The backward passes, one for each draw."""
        roots = [pair for site in sites for pair in site.roots({**RULES, **self.rules})]
        for _ in range(self.draws):
            probes = [root(signs.random_signs(parameter)) * self.draws**-0.5 for parameter, root in roots]
            yield BackwardPass([parameter for parameter, _ in roots], probes)


def _depends(parameter: Tensor, at: Tensor) -> bool:
    (gradient,) = torch.autograd.grad(parameter.sum(), at, retain_graph=True, allow_unused=True)
    return gradient is not None
