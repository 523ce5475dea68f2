"""What all methods share: the network, the noise, the optimiser."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.fit import fit
from bayesnn.likelihoods import Likelihood
from bayesnn.predict import PredictiveDistribution

from examples.studies.uci_regression.problem import Data

Predictor = Callable[[Tensor], PredictiveDistribution]
"""New inputs -> the predictive distribution of y."""

Fit = Callable[..., Predictor]
"""(training data, recipe, **settings) -> what predicts."""


@dataclass(frozen=True)
class Recipe:
    """One hidden layer of 50 ReLU, trained by Adam with a learning rate that falls to zero along a
    cosine.

    Attributes:
        heads: 1: y ~ N(f, sigma^2) with a learned sigma; 2: y ~ N(m, exp(s)^2), both from the
            network.
        steps, rate: of Adam; each takes all training examples.
        draws: of predictions that need them.
        members: of the ensemble.
    """

    heads: int = 1
    steps: int = 300
    rate: float = 0.02
    draws: int = 100
    members: int = 5

    def net(self, data: Data) -> nn.Module:
        """New weights."""
        return nn.Sequential(nn.Linear(data.x.shape[1], 50), nn.ReLU(), nn.Linear(50, self.heads)).eval()

    def likelihood(self) -> Likelihood:
        """Of standardised targets."""
        return likelihoods.normal(learned(0.5)) if self.heads == 1 else likelihoods.heteroscedastic

    def model(self, data: Data, scale: float) -> BNN:
        """All weights random under N(0, scale^2)."""
        net = self.net(data)
        return BNN(net, subset.everything(net), priors.normal(scale), self.likelihood(), size=len(data.x))

    def train(self, loss: nn.Module, data: Data) -> None:
        """Minimise a loss."""
        schedule = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=self.steps)
        optimizer = partial(torch.optim.Adam, lr=self.rate)
        fit(loss, data, epochs=self.steps, optimizer=optimizer, schedule=schedule, progress=False)
