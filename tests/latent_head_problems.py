"""A V-TST model of a small body, and data for it."""

import torch
from torch import Tensor, nn

from bayesnn import likelihoods
from bayesnn.guides import AmortisedHead
from bayesnn.models import LatentHead, truncate

N, LATENT = 12, 4


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(N, 3), torch.arange(N) % 3


def made(**options: object) -> tuple[LatentHead, AmortisedHead]:
    point = bool(options.pop("point", False))
    model = LatentHead(LATENT, 3, likelihoods.categorical, size=60, **options)  # type: ignore[arg-type]
    return model, AmortisedHead(truncate(body(), "3"), 8, model, point=point)
