"""Methods that start from trained networks: MAP, a deep ensemble, Laplace and SWAG."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.fit import fit
from bayesnn.guides import SWAG, Laplace
from bayesnn.likelihoods import Likelihood
from bayesnn.predict import PredictiveDistribution, gaussian, predictive

from examples.studies.uci_regression.problem import Data
from examples.studies.uci_regression.recipe import Predictor, Recipe

SNAPSHOTS = 30


class LogJoint(nn.Module):
    """-log p(y, w) = -size / batch sum_i log p(y_i | f(x_i)) + sum_j w_j^2 / (2 scale^2), in nats
    and up to a constant.

    It trains the network itself and the likelihood's learned noise.
    """

    def __init__(self, net: nn.Module, likelihood: Likelihood, scale: float, size: int) -> None:
        super().__init__()
        self.net, self.likelihood, self.scale, self.size = net, likelihood, scale, size

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Of one batch."""
        fitted = self.likelihood(self.net(x)).log_prob(y).mean() * self.size
        squares = torch.stack([weight.square().sum() for weight in self.net.parameters()]).sum()
        return squares / (2 * self.scale**2) - fitted


def trained(data: Data, recipe: Recipe, scale: float) -> LogJoint:
    """A network at a maximum of the joint density of targets and weights."""
    loss = LogJoint(recipe.net(data), recipe.likelihood(), scale, len(data.x))
    recipe.train(loss, data)
    return loss


def ensemble(data: Data, recipe: Recipe, *, scale: float, members: int | None = None) -> Predictor:
    """The even mixture of networks trained from different starts; of one network MAP."""
    return _mixture([trained(data, recipe, scale) for _ in range(members or recipe.members)])


def held_out_noise(data: Data, recipe: Recipe, *, scale: float) -> Predictor:
    """MAP, with the noise that its errors show on a fifth of the training data
    when it is trained on the others.
    """
    whole = trained(data, recipe, scale)  # first: with the same seed it is MAP's network
    order = torch.randperm(len(data.x))
    left, learned = (data.rows(part) for part in order.tensor_split([len(order) // 5]))
    net = trained(learned, recipe, scale).net
    with torch.no_grad():
        noise = (net(left.x) - left.y).square().mean().sqrt().item()
    return _mixture([LogJoint(whole.net, likelihoods.normal(noise), scale, whole.size)])


def laplace(data: Data, recipe: Recipe, *, scale: float) -> Predictor:
    """Full covariance at the MAP; prior scale and noise then maximise the
    evidence; outputs linearised.
    """
    guide = Laplace(_model(_fixed_noise(trained(data, recipe, scale))))
    best = guide.fit([(data.x, data.y)]).maximise_evidence(fit_noise=True)
    return lambda x: gaussian(best.model.likelihood, best.output_distribution(x))


def swag(data: Data, recipe: Recipe, *, scale: float, rate: float) -> Predictor:
    """Snapshots after every epoch of SGD from the MAP on; the noise stays that of the MAP.

    `rate` is that of squared errors (f - y)^2 / 2, whose steps do not grow where the noise is
    small.
    """
    loss = _fixed_noise(trained(data, recipe, scale))
    guide = SWAG(_model(loss), rank=SNAPSHOTS)
    variance = loss.likelihood(torch.zeros(1, 1)).variance.item()
    batches, sgd = replace(data, batch=64), partial(torch.optim.SGD, lr=rate * variance / loss.size)
    for _ in range(SNAPSHOTS):
        fit(loss, batches, epochs=1, optimizer=sgd, progress=False)
        guide.collect()
    return lambda x: predictive(guide, x, recipe.draws)


def _mixture(found: Sequence[LogJoint]) -> Predictor:
    @torch.no_grad()
    def predictor(x: Tensor) -> PredictiveDistribution:
        each = [one.likelihood(one.net(x)) for one in found]
        mean, variance = (torch.stack([getattr(p, moment) for p in each]) for moment in ("mean", "variance"))
        return PredictiveDistribution(dist.Normal(mean, variance.sqrt()).to_event(1))

    return predictor


def _fixed_noise(loss: LogJoint) -> LogJoint:
    """The same network, the noise at the value found."""
    noise = loss.likelihood(torch.zeros(1, 1)).stddev.item()
    return LogJoint(loss.net, likelihoods.normal(noise), loss.scale, loss.size)


def _model(loss: LogJoint) -> BNN:
    """The trained network with all weights random."""
    return BNN(loss.net, subset.everything(loss.net), priors.normal(loss.scale), loss.likelihood, size=loss.size)
