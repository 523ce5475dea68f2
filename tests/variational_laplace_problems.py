"""Problems with known answers for the tests of variational Laplace, all in double precision."""

from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset

X = torch.tensor([[1, 0.5], [1, -1], [1, 2]], dtype=torch.double)
Y = torch.tensor([1, -0.5, 2.2], dtype=torch.double)
MEAN = torch.tensor([0.3, 0.9], dtype=torch.double)
VARIANCES = torch.tensor([0.05, 0.02], dtype=torch.double)
NOISE, PRIOR = 0.25**0.5, 2**0.5
ELBO, BEST, UNIFORM, FULL = -4.7418988780, -4.5574120282, -4.5937345825, -4.4855036966


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


class NoCurvature:
    """A user's own curvature: none."""

    def passes(self, sites: Any) -> Iterator[Any]:
        return iter(())


def linear(chosen: Tensor | None = None) -> None:
    """A user's own model: linear regression in a plate, of which a part may be seen."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.double), PRIOR).to_event(1))
    with pyro.plate("data", 3, subsample=chosen) as i:
        pyro.sample("y", dist.Normal(X[i] @ w, NOISE), obs=Y[i])


class Handwritten(nn.Module):
    """A user's guide of one site, normal with a covariance or without."""

    def __init__(self, covariance: Tensor | None = None) -> None:
        super().__init__()
        self.loc = nn.Parameter(MEAN.clone())
        full = torch.diag(VARIANCES) if covariance is None else covariance
        self.scale_tril = nn.Parameter(torch.linalg.cholesky(full))
        self.full = covariance is not None

    def forward(self, *args: Any) -> None:
        if self.full:
            pyro.sample("w", dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril))
        else:
            pyro.sample("w", dist.Normal(self.loc, self.scale_tril.diagonal()).to_event(1))


def linear_bnn() -> tuple[BNN, Tensor, Tensor]:
    """The same model as a `BNN`."""
    net = nn.Linear(2, 1, bias=False).double()
    model = BNN(net, subset.everything(net), priors.normal(PRIOR), likelihoods.normal(NOISE), size=3)
    return model, X, Y.unsqueeze(1)


INIT = {"weight": MEAN.unsqueeze(0)}


def classifier(hidden: int = 2) -> tuple[BNN, Tensor, Tensor]:
    """A tanh-softmax network of three classes, and two examples."""
    net = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 3)).double()
    for value in net.parameters():
        nn.init.normal_(value)
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=2)
    return model, torch.randn(2, 2, dtype=torch.double), torch.tensor([2, 0])
