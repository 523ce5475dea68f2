"""What the tests of noise in the layers share."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import FlipoutELBO, LocalReparameterisationELBO, MeanField

both = pytest.mark.parametrize("elbo", [LocalReparameterisationELBO, FlipoutELBO])


def guided(net: nn.Module, prior: Any = None, scale: float = 0.3, chosen: Any = None) -> tuple[BNN, MeanField]:
    prior = priors.normal(0.8) if prior is None else prior
    model = BNN(net, subset.everything(net) if chosen is None else chosen, prior, likelihoods.categorical, size=18)
    return model, MeanField(model, scale=scale)


def normalised() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.LayerNorm(4), nn.GroupNorm(2, 4))
    return nn.Sequential(*net, nn.Linear(4, 2)).eval()


def loss_and_gradient(elbo: Any, model: BNN, guide: MeanField, x: Tensor, y: Tensor) -> Tensor:
    loss = elbo.differentiable_loss(model, guide, x, y)
    gradients = torch.autograd.grad(loss, [guide.loc, guide.log_scale])
    return torch.cat([loss.detach().reshape(1), *gradients])
