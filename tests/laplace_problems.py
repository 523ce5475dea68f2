"""Problems for the Laplace guide, and their modes by Newton's method on the dense log joint."""

import oracle
import torch
from pyro import poutine
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset

PHI = torch.tensor([[1.0, 0.5], [1.0, -1.0], [1.0, 2.0]], dtype=torch.double)
Y = torch.tensor([[1.0], [-0.5], [2.2]], dtype=torch.double)


def log_joint(model: BNN, values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """log p(y, w), through Pyro alone."""
    return poutine.trace(poutine.condition(model, values)).get_trace(x, y).log_prob_sum()


def hessian(model: BNN, values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Of the negative log joint, [param, param]."""
    return torch.autograd.functional.hessian(
        lambda vector: -log_joint(model, oracle.unflat(vector, values), x, y), oracle.flat(values)
    )


def mode(model: BNN, x: Tensor, y: Tensor, steps: int = 30) -> dict[str, Tensor]:
    """The maximum of a concave log joint, by Newton's method from zero."""
    values = {site: torch.zeros_like(value) for site, value in model.values().items()}
    for _ in range(steps):
        gradient = torch.autograd.functional.jacobian(
            lambda vector, like=values: log_joint(model, oracle.unflat(vector, like), x, y), oracle.flat(values)
        )
        moved = oracle.flat(values) + torch.linalg.solve(hessian(model, values, x, y), gradient)
        values = oracle.unflat(moved, values)
    assert gradient.abs().max() < 1e-8
    return values


def golden(precision: float = 0.5) -> tuple[BNN, Tensor, Tensor]:
    """Two weights, three examples, noise variance 0.25: evidence and predictive
    are known to ten digits.
    """
    net = nn.Linear(2, 1, bias=False).double()
    model = BNN(net, subset.everything(net), priors.normal(precision**-0.5), likelihoods.normal(0.5))
    return model, PHI, Y


TARGETS = {
    "categorical": lambda: torch.tensor([0, 1, 2, 2, 1, 0, 1]),
    "bernoulli": lambda: torch.randint(0, 2, (7, 3)).double(),
    "normal": lambda: torch.randn(7, 3, dtype=torch.double),
    "poisson": lambda: torch.randint(0, 5, (7, 3)).double(),
}
LIKELIHOODS = {
    "categorical": likelihoods.categorical,
    "bernoulli": likelihoods.bernoulli,
    "normal": likelihoods.normal(torch.tensor([0.3, 0.5, 1.0])),
    "poisson": likelihoods.poisson,
}
