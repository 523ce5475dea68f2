"""Bayesian networks of every make: `MODELS[name]() -> (model, x, y)`; a new
kind is covered by one line.
"""

from collections.abc import Callable

import torch
from nets import NETS, convolutional, mlp
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors
from bayesnn.functional import Inputs
from bayesnn.likelihoods import Likelihood
from bayesnn.priors import Prior
from bayesnn.subset import Subset, everything, last_layer

Made = tuple[BNN, Inputs, Tensor]
SIZE = 30


def some(net: nn.Module) -> Subset:
    """A whole vector and some entries of a matrix."""
    return Subset(everything(net).shape, {"0.bias": None, "2.weight": torch.tensor([0, 3, 6])})


def users_own(name: str, value: Tensor) -> dist.TorchDistribution:
    return dist.Normal(value, 2.0)


def exponential(outputs: Tensor) -> dist.TorchDistribution:
    return dist.Exponential(outputs.exp()).to_event(1)


def made(
    net: nn.Module,
    x: Inputs,
    y: Tensor,
    prior: Prior,
    likelihood: Likelihood,
    subset: Subset | None = None,
    name: str = "",
) -> Made:
    return BNN(net, subset or everything(net), prior, likelihood, size=SIZE, name=name), x, y


def small(prior: Prior | Callable[[nn.Module], Prior], likelihood: Likelihood, y: Tensor, **options: object) -> Made:
    return made(mlp(), torch.randn(len(y), 3), y, prior, likelihood, **options)  # type: ignore[arg-type]


CLASSES, REAL, COUNTS = torch.tensor([0, 1, 1]), torch.tensor([[0.5, -1.0]] * 3), torch.tensor([[0.0, 4.0]] * 3)
half_cauchy = dist.HalfCauchy(1.0)


def _latent_variance() -> Made:
    net, noise = mlp(), likelihoods.student_t(dist.Gamma(2.0, 0.1), half_cauchy)
    prior = priors.hierarchical(variance=dist.InverseGamma(2.0, 1.0))
    return made(net, torch.randn(3, 3), REAL, prior, noise, some(net), "net")


def _pixels() -> Made:
    net, y = nn.Conv2d(1, 3, 3, padding=1), torch.randint(0, 3, (2, 3, 4))
    return made(net, torch.randn(2, 1, 3, 4), y, priors.normal(), likelihoods.pixelwise_categorical)


def _convolutional() -> Made:
    net, x = convolutional()
    return made(net, x, CLASSES, priors.fan_in(net), likelihoods.categorical, last_layer(net))


def _recurrent() -> Made:
    net, x = NETS["lstm"]()
    return made(net, x, CLASSES, priors.around(net, 0.5), likelihoods.categorical, name="rnn")


MODELS: dict[str, Callable[[], Made]] = {
    "categorical": lambda: small(priors.normal(1.0), likelihoods.categorical, CLASSES),
    "bernoulli": lambda: small(priors.laplace(1.0), likelihoods.bernoulli, torch.tensor([[0.0, 1.0]] * 3)),
    "normal": lambda: small(priors.student_t(4.0), likelihoods.normal(0.5), REAL),
    "normal, learned": lambda: small(priors.normal(learned(0.5)), likelihoods.normal(learned(0.5)), REAL),
    "normal, latent": lambda: small(priors.hierarchical(scale=half_cauchy), likelihoods.normal(half_cauchy), REAL),
    "latent variance, some entries": _latent_variance,
    "poisson": lambda: small(users_own, likelihoods.poisson, COUNTS),
    "negative binomial": lambda: small(
        priors.laplace(half_cauchy), likelihoods.negative_binomial(learned(2.0)), COUNTS
    ),
    "heteroscedastic": lambda: small(priors.normal(), likelihoods.heteroscedastic, REAL[:, :1]),
    "user's own": lambda: small(users_own, exponential, COUNTS + 0.5, name="own"),
    "pixels": _pixels,
    "convolutional, last layer": _convolutional,
    "recurrent": _recurrent,
    "dict": lambda: made(*NETS["dict"](), REAL, priors.normal(), likelihoods.normal(1.0)),
}
