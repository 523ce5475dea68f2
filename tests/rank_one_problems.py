"""Rank-one ensembles of every make: `PROBLEMS[name](...) -> (model, guide, x, y)`."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import learned, likelihoods
from bayesnn.guides import RankOneGuide
from bayesnn.models import RankOneEnsemble, batch_ensemble, latent_rank_one

SIZE = 12
MEMBERS = 3
Problem = tuple[RankOneEnsemble, RankOneGuide, Any, Tensor]


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def normed() -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 2)
    )
    net(torch.randn(20, 1, 6, 6))
    return net.eval()


LABELS, REAL = torch.tensor([0, 1, 1, 0, 1, 0]), torch.linspace(-1, 1, 12).reshape(6, 2)


def _made(net: Any, x: Tensor, name: str, prior: Any = None, *, regression: bool = False, **options: Any) -> Problem:
    likelihood = likelihoods.normal(learned(0.5)) if regression else likelihoods.categorical
    model = RankOneEnsemble(net, likelihood, size=SIZE, prior=prior, name=name, **options)
    return model, RankOneGuide(model), x, REAL if regression else LABELS


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "BatchEnsemble": lambda name="": _made(batch_ensemble(body(), MEMBERS), torch.randn(6, 3), name),
    "rank-1, normal": lambda name="": _made(
        batch_ensemble(body(), MEMBERS), torch.randn(6, 3), name, dist.Normal(1.0, 0.2), regression=True
    ),
    "rank-1, Cauchy": lambda name="": _made(
        batch_ensemble(body(), MEMBERS), torch.randn(6, 3), name, dist.Cauchy(1.0, 0.1), kl_weight=0.5
    ),
    "LP-BNN": lambda name="": _made(
        latent_rank_one(body(), MEMBERS, latent=8), torch.randn(6, 3), name, regression=True
    ),
    "LP-BNN, convolutions": lambda name="": _made(
        latent_rank_one(normed(), MEMBERS, latent=8), torch.randn(6, 1, 6, 6), name
    ),
    "LP-BNN, official convolutions": lambda name="": _made(
        latent_rank_one(normed(), MEMBERS, latent=8, official_conv=True, train_r=False, per_member_norm=False),
        torch.randn(6, 1, 6, 6),
        name,
        kl_weight=1.0,
    ),
}
