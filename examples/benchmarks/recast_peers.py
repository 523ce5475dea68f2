"""What RECaST's samplers are measured beside: latent effects, and integrals by
quadrature, in plain Pyro.
"""

import math
from collections.abc import Callable

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

LogLikelihood = Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]
"""(numbers, f, y) -> log p(y_i | f_i, numbers), [batch]."""
PyroModel = Callable[[Tensor, Tensor], None]


def numbers(*names: str) -> dict[str, Tensor]:
    """The published priors."""
    priors = {"delta": dist.Normal(1.0, 20.0), "log_gamma": dist.Normal(0.0, 3.0), "log_sigma": dist.Normal(0.0, 3.0)}
    return {name: pyro.sample(name, priors[name]) for name in names}


def centred(f: Tensor, y: Tensor) -> None:
    """A latent effect for each target, as the paper writes the model."""
    values = numbers("delta", "log_gamma", "log_sigma")
    with pyro.plate("data", len(f)):
        beta = pyro.sample("beta", dist.Cauchy(values["delta"], values["log_gamma"].exp()))
        pyro.sample("y", dist.Normal(beta * f, values["log_sigma"].exp()), obs=y)


def reparameterised(f: Tensor, y: Tensor) -> None:
    """The same with beta = delta + gamma tan(pi u / 2), u uniform: no Cauchy tails to travel."""
    values = numbers("delta", "log_gamma", "log_sigma")
    with pyro.plate("data", len(f)):
        u = pyro.sample("u", dist.Uniform(-1.0, 1.0))
        beta = values["delta"] + values["log_gamma"].exp() * torch.tan(math.pi / 2 * u)
        pyro.sample("y", dist.Normal(beta * f, values["log_sigma"].exp()), obs=y)


def by_quadrature(log_likelihood: LogLikelihood, *names: str) -> PyroModel:
    """The effects integrated out by a sum over nodes, differentiated by autograd."""

    def model(f: Tensor, y: Tensor) -> None:
        pyro.factor("y", log_likelihood(numbers(*names), f, y).sum())

    return model


def tangent(count: int) -> LogLikelihood:
    """Gauss-Legendre nodes in u of beta = delta + gamma tan(pi u / 2): exact
    where gamma |f| is of sigma's size.
    """
    u, weight = np.polynomial.legendre.leggauss(count)
    tan, log_weight = torch.tensor(np.tan(math.pi / 2 * u)[:, None]), torch.tensor(np.log(weight / 2)[:, None])

    def log_likelihood(values: dict[str, Tensor], f: Tensor, y: Tensor) -> Tensor:
        beta = values["delta"] + values["log_gamma"].exp() * tan
        z = (y - beta * f) / values["log_sigma"].exp()
        return (log_weight - z**2 / 2).logsumexp(0) - values["log_sigma"] - math.log(2 * math.pi) / 2

    return log_likelihood


def line(count: int, reach: float = 8.0) -> LogLikelihood:
    """The paper's integral over u = (beta - y/f) |f| / sigma by equal steps; within 8, where it
    has u within 39.
    """
    step = 2 * reach / count
    u = ((torch.arange(count, dtype=torch.double) + 0.5) * step - reach).unsqueeze(1)
    log_weight = -(u**2) / 2 - math.log(2 * math.pi) / 2 + math.log(step / math.pi)

    def log_likelihood(values: dict[str, Tensor], f: Tensor, y: Tensor) -> Tensor:
        sigma, size = values["log_sigma"].exp(), f.abs()
        centre, width = (size * values["delta"] - f.sign() * y) / sigma, values["log_gamma"].exp() * size / sigma
        return (log_weight - torch.log1p(((u - centre) / width) ** 2) - width.log()).logsumexp(0) - values["log_sigma"]

    return log_likelihood


def panels(count: int) -> LogLikelihood:
    """Labels: Gauss-Legendre nodes in u of beta = delta + gamma tan(pi u / 2), either side of the
    step at beta = 0.
    """
    node, weight = (torch.tensor(one[:, None]) for one in np.polynomial.legendre.leggauss(count // 2))

    def log_likelihood(values: dict[str, Tensor], f: Tensor, y: Tensor) -> Tensor:
        gamma = values["log_gamma"].exp()
        split = -2 / math.pi * torch.atan(values["delta"] / gamma)
        half = torch.stack([1 + split, 1 - split]) / 2
        u = torch.cat([-1 + half[0] * (1 + node), 1 - half[1] * (1 + node)])
        p = torch.cat([half[0] * weight, half[1] * weight]) / 2
        beta = values["delta"] + gamma * torch.tan(math.pi / 2 * u)
        return (p * torch.sigmoid((2 * y - 1) * beta * f)).sum(0).clamp(1e-12, 1 - 1e-12).log()

    return log_likelihood
