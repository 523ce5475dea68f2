"""New heads on the frozen features of a trained network."""

import copy
import os
import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import likelihoods, predictive
from bayesnn.fit import fit
from bayesnn.guides import AmortisedHead, MeanFieldELBO
from bayesnn.models import LatentHead, cache_features, truncate

from examples.studies.common.predictors import Predictor, log_losses
from examples.studies.common.training import Task

SMOKE = bool(os.environ.get("SMOKE"))
LATENTS = (32,) if SMOKE else (32, 128)
KL_WEIGHTS = (0.01,) if SMOKE else (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)
EPOCHS, PATIENCE = (2, 1) if SMOKE else (60, 10)
BATCH, RATE = 50, 1e-3
DRAWS = 10
"""Of z, for the choice of the epoch as for predictions."""
FEATURES = 576


@dataclass(frozen=True)
class Head:
    """A trained head, its loss on the held-out images in nats, what it cost in
    CPU seconds, and its size.
    """

    predictor: Predictor
    loss: float
    seconds: float
    parameters: int


def trained(loss: nn.Module, data: TensorDataset, validate: object) -> None:
    """Adam; the epoch with the smallest validation NLL is kept, as the authors' erratum says."""
    fit(
        loss,
        DataLoader(data, batch_size=BATCH, shuffle=True),
        epochs=EPOCHS,
        optimizer=partial(torch.optim.Adam, lr=RATE),
        validate=validate,  # type: ignore[arg-type]
        patience=PATIENCE,
        progress=False,
    )


def two_stage(net: nn.Module, task: Task, held: TensorDataset, latent: int) -> Head:
    """TST: the head is a network of the same shape, without noise."""
    return _head(net, task, held, LatentHead(latent, 10, likelihoods.categorical, kl_weight=0.0, size=len(task.data)))


def variational(net: nn.Module, task: Task, held: TensorDataset, latent: int, kl_weight: float) -> Head:
    """V-TST."""
    model = LatentHead(latent, 10, likelihoods.categorical, kl_weight=kl_weight, size=len(task.data))
    return _head(net, task, held, model)


def _head(net: nn.Module, task: Task, held: TensorDataset, model: LatentHead) -> Head:
    torch.manual_seed(task.seed)
    start = time.process_time()
    draws = DRAWS if model.kl_weight else 1
    features = truncate(net, "7")
    guide = AmortisedHead(features, FEATURES, model, point=not model.kl_weight)
    cached, validation = (cache_features(features, DataLoader(data, batch_size=200)) for data in (task.data, held))
    x, y = validation.tensors
    fast = guide.of_features()

    def loss() -> float:
        return -float(predictive(fast, x, draws).log_prob(y).mean())

    trained(MeanFieldELBO()(model, fast), cached, loss)

    def predictor(images: Tensor) -> Tensor:
        # one pass of the network for all draws
        return predictive(fast, features(images), draws).component_probs

    held_out = float(log_losses(predictor, *held.tensors).mean())
    size = sum(parameter.numel() for part in (guide, model) for parameter in part.parameters())
    return Head(predictor, held_out, time.process_time() - start, size)


def linear_head(net: nn.Module, task: Task, held: TensorDataset) -> Head:
    """The last linear layer alone, initialised anew and trained again."""
    torch.manual_seed(task.seed)
    start = time.process_time()
    features = truncate(net, "7")
    cached, validation = (cache_features(features, DataLoader(data, batch_size=200)) for data in (task.data, held))
    x, y = validation.tensors
    loss = _CrossEntropy(nn.Linear(FEATURES, 10))

    @torch.no_grad()
    def held_out() -> float:
        return float(loss(x, y))

    trained(loss, cached, held_out)
    layer = copy.deepcopy(loss.layer).requires_grad_(requires_grad=False)

    def predictor(images: Tensor) -> Tensor:
        return layer(features(images)).softmax(-1).unsqueeze(0)

    size = sum(parameter.numel() for parameter in layer.parameters())
    return Head(predictor, held_out(), time.process_time() - start, size)


class _CrossEntropy(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.layer(x), y)
