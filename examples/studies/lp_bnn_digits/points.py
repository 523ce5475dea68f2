"""Networks without latents: one, one with a temperature, one with dropout, and an ensemble."""

import os
import time
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bayesnn import metrics
from bayesnn.predict import ensemble_outputs, noisy_outputs

from examples.studies.common.heads import FEATURES, LATENTS, two_stage, variational
from examples.studies.common.network import CrossEntropy
from examples.studies.common.predictors import Predictor, cooled, log_losses, softmax
from examples.studies.common.temperature import TEMPERATURES
from examples.studies.common.training import Task, network, point, train
from examples.studies.lp_bnn_digits.trained import NONE, Trained, probabilities, size

MEMBERS, DROPOUT = (2, (0.5,)) if os.environ.get("SMOKE") else (4, (0.2, 0.5))
PASSES = 16
"""Of MC dropout."""


def points(task: Task, held: TensorDataset) -> dict[str, Trained]:
    """MAP first; a temperature on it, heads on its features, dropout, an ensemble with it."""
    point(replace(task, epochs=1), NONE)  # a first training is slower than those after it
    start = time.process_time()
    net = point(task, NONE)
    seconds = time.process_time() - start
    alone: Predictor = partial(softmax, net)
    found = {"MAP": Trained(alone, size(net), seconds)}
    at = {t: partial(cooled, alone, t) for t in TEMPERATURES.tolist()}
    losses = {t: float(log_losses(one, *held.tensors).mean()) for t, one in at.items()}
    temperature = min(losses, key=losses.__getitem__)
    found["MAP, one temperature"] = Trained(at[temperature], size(net) + 1, seconds, f"{temperature:.2f}")
    body = size(net) - 10 * (FEATURES + 1)
    for latent in LATENTS:
        heads = {"TST": two_stage(net, task, held, latent), "V-TST": variational(net, task, held, latent, 1 / latent)}
        for name, head in heads.items():
            trained = Trained(head.predictor, body + head.parameters, seconds + head.seconds)
            found[f"{name}, Z = {latent}"] = trained
    found["MC dropout"] = dropout(task, held)
    found[f"ensemble of {MEMBERS}"] = ensemble(net, seconds, task, held)
    return found


def dropout(task: Task, held: TensorDataset) -> Trained:
    """Dropout before both dense layers, of the rate that predicts held-out images best."""
    tried: list[tuple[float, Trained]] = []
    for rate in DROPOUT:
        net = _with_dropout(network(task.seed), rate)
        start = time.process_time()
        train(CrossEntropy(net.train()), task, NONE)
        seconds = time.process_time() - start
        predictor = partial(_noisy, net.eval())
        loss = float(log_losses(predictor, *held.tensors).mean())
        tried.append((loss, Trained(predictor, size(net), seconds, f"rate {rate:g}")))
    return min(tried, key=lambda pair: pair[0])[1]


def _with_dropout(net: nn.Sequential, rate: float) -> nn.Sequential:
    layers = [[nn.Dropout(rate), layer] if isinstance(layer, nn.Linear) else [layer] for layer in net]
    return nn.Sequential(*(layer for pair in layers for layer in pair))


def _noisy(net: nn.Module, x: Tensor) -> Tensor:
    return noisy_outputs(net, x, PASSES).softmax(-1)


def ensemble(net: nn.Module, seconds: float, task: Task, held: TensorDataset) -> Trained:
    """Members from starts of their own."""
    nets = [net, *(point(replace(task, seed=task.seed + i), NONE) for i in range(1, MEMBERS))]
    apart = float(metrics.disagreement(probabilities(nets, held.tensors[0])).mean())
    history = [{"disagreement": apart, "between": [], "within": []}]

    @torch.no_grad()
    def predictor(x: Tensor) -> Tensor:
        return ensemble_outputs(nets, x).softmax(-1)

    return Trained(predictor, MEMBERS * size(net), MEMBERS * seconds, history=history)
