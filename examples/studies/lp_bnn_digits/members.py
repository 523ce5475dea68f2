"""Networks with members of rank one: BatchEnsemble, the rank-1 BNN and LP-BNN."""

import os
import time
import warnings
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.utils.data import TensorDataset

from bayesnn import likelihoods, metrics
from bayesnn.guides import RankOneELBO, RankOneGuide
from bayesnn.models import RankOneEnsemble, batch_ensemble, latent_rank_one
from bayesnn.models.rank_one import RankOneNet, diversity
from bayesnn.predict import predict

from examples.studies.common.predictors import log_losses
from examples.studies.common.training import Task, network, train
from examples.studies.lp_bnn_digits.points import MEMBERS
from examples.studies.lp_bnn_digits.trained import EPOCH, NONE, Trained, probabilities, size

SMOKE = bool(os.environ.get("SMOKE"))
KL_WEIGHTS = (1.0, 0.01) if SMOKE else (10.0, 1.0, 0.1, 0.01)
PRIORS = (0.1,) if SMOKE else (0.1, 0.5)
"""Standard deviations of the rank-1 BNN's vectors."""

DRAWS = 4
"""Of each member's codes or vectors."""

PUBLISHED = "LP-BNN, KL weight as published"
CHOSEN = "LP-BNN, KL weight chosen"
SWEPT = "LP-BNN at "


def members(task: Task, held: TensorDataset) -> dict[str, Trained]:
    """All methods with members; LP-BNN at every KL weight under names that begin with `SWEPT`."""
    found = {"BatchEnsemble": fitted(batch_ensemble(network(task.seed), MEMBERS), task, held, draws=1)[1]}
    one = [_rank_one(scale, task, held) for scale in PRIORS]
    found["rank-1 BNN"] = min(one, key=lambda pair: pair[0])[1]
    found[PUBLISHED] = _latent(None, task, held)[1]
    swept = {weight: _latent(weight, task, held) for weight in KL_WEIGHTS}
    found[CHOSEN] = min(swept.values(), key=lambda pair: pair[0])[1]
    return found | {f"{SWEPT}{weight:g}": trained for weight, (_, trained) in swept.items()}


def _rank_one(scale: float, task: Task, held: TensorDataset) -> tuple[float, Trained]:
    net, prior = batch_ensemble(network(task.seed), MEMBERS), dist.Normal(1.0, scale)
    return fitted(net, task, held, draws=DRAWS, chosen=f"prior N(1, {scale:g}²)", prior=prior)


def _latent(kl_weight: float | None, task: Task, held: TensorDataset) -> tuple[float, Trained]:
    net = latent_rank_one(network(task.seed), MEMBERS)
    chosen = "" if kl_weight is None else f"{kl_weight:g}"
    return fitted(net, task, held, draws=DRAWS, chosen=chosen, kl_weight=kl_weight)


def fitted(
    net: RankOneNet, task: Task, held: TensorDataset, *, draws: int, chosen: str = "", **options: Any
) -> tuple[float, Trained]:
    """(loss on held-out images, the trained ensemble): all members see all images, in one pass."""
    torch.manual_seed(task.seed)
    model = RankOneEnsemble(net, likelihoods.categorical, size=len(task.data), **options)
    guide = RankOneGuide(model)
    history: list[EPOCH] = []
    watching = 0.0

    def watch() -> float:
        nonlocal watching
        start = time.process_time()
        history.append(apart(net, held.tensors[0]))
        watching += time.process_time() - start
        return 0.0

    start = time.process_time()
    train(RankOneELBO()(model, guide), task, NONE, watch)
    seconds = time.process_time() - start - watching
    drawn = guide.draws(draws)

    def predictor(x: Tensor) -> Tensor:
        return predict(drawn, x, draws * MEMBERS, model=model).softmax(-1)

    loss = float(log_losses(predictor, *held.tensors).mean())
    return loss, Trained(predictor, size(net) + size(guide), seconds, chosen, history)


@torch.no_grad()
def apart(net: RankOneNet, x: Tensor) -> EPOCH:
    """How far the members, with their codes at the mean, lie apart: in predictions at x, and in
    r_hat of each layer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # collapse is what is looked for
        layers = diversity(net).values()
    p = probabilities([net.member(j) for j in range(net.members)], x)
    spread = {key: [getattr(layer, key) for layer in layers] for key in ("between", "within", "kl")}
    return {"disagreement": float(metrics.disagreement(p).mean()), **spread}
