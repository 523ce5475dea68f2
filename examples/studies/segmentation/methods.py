"""The methods: all go on from one trained network, for equally many steps."""

import copy
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from bayesnn import likelihoods, metrics, predictive
from bayesnn.guides import RankOneELBO, RankOneGuide
from bayesnn.models import RankOneEnsemble, batch_ensemble, latent_rank_one
from bayesnn.models.rank_one import RankOneNet, diversity, near_one
from bayesnn.predict import PredictiveDistribution, ensemble_outputs, noisy_outputs

from examples.studies.common import kept
from examples.studies.common.network import CrossEntropy
from examples.studies.common.temperature import TEMPERATURES
from examples.studies.segmentation.network import Logits, deeplab, train
from examples.studies.segmentation.scenes import Scenes, scenes

SMOKE = bool(os.environ.get("SMOKE"))
IMAGES, HELD = (8, 4) if SMOKE else (480, 40)
SIZE = 16 if SMOKE else 48
"""Pixels of a side."""

BATCH = 8
START, LONGER = (1, 1) if SMOKE else (3, 1)
"""Passes over the images: of the network that all start from, and of every method after it."""

RATE, SLOWER = 1e-3, 5e-4
MEMBERS = 4
PASSES = 4
"""Of MC dropout and LP-BNN, whose members have one draw each, as published."""

NEAR = 0.2
"""Spread of the members' vectors at the start; the network is trained already,
and 0.5 would undo it.
"""

KL_WEIGHTS: tuple[float, ...] = () if SMOKE else (1.0,)
"""Besides the published one."""

NOISE = 0.6
"""Of an entry of r_hat, as a code starts of itself."""

CHUNK = 50

MAP, COOLED, DROPOUT, ENSEMBLE = "MAP", "MAP, one temperature", "MC dropout", "BatchEnsemble"
PUBLISHED, CHOSEN, SWEPT = "LP-BNN, KL weight as published", "LP-BNN, KL weight chosen", "LP-BNN at "

Predictor = Callable[[Tensor], Tensor]
"""x [batch, 3, size, size] -> probabilities of every draw, [draw, batch, size, size, class]."""


@dataclass(frozen=True)
class Trained:
    """A way to predict, what it cost beyond the common start, and what was looked at.

    Attributes:
        parameters: trained numbers.
        seconds: CPU time of the steps after the start.
        chosen: what validation chose, to print.
        layers: means over layers of `diversity`: "between", "within", "kl".
    """

    predictor: Predictor
    parameters: int
    seconds: float
    chosen: str = ""
    layers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Images to learn from, images to choose by, and the network that all methods start from."""

    train: Scenes
    held: Scenes
    seed: int
    net: Logits
    seconds: float


def begin(seed: int, folder: Path) -> Task:
    """The task of a seed; its network is kept in the folder, so that a stopped
    study need not train it again.
    """
    data, held = (scenes(n, seed=1000 * seed + i, size=SIZE) for i, n in enumerate((IMAGES, HELD)))
    net, clock = deeplab(seed), folder / f"start_{seed}.json"
    start = time.process_time()
    train(CrossEntropy(net), data, epochs=START, batch=BATCH, rate=RATE, checkpoint=folder / f"start_{seed}.pt")
    if (seconds := kept.read(clock)) is None:
        seconds = time.process_time() - start
        kept.write(clock, seconds)
    return Task(data, held, seed, net, seconds)


def plain(task: Task) -> dict[str, Trained]:
    """The network trained on; one temperature for it; its own dropout left on."""
    net = copy.deepcopy(task.net)
    torch.manual_seed(task.seed)
    start = time.process_time()
    train(CrossEntropy(net), task.train, epochs=LONGER, batch=BATCH, rate=SLOWER)
    seconds = time.process_time() - start

    def alone(x: Tensor) -> Tensor:
        return _probabilities(ensemble_outputs([net], x, chunk=CHUNK))

    def dropped(x: Tensor) -> Tensor:
        torch.manual_seed(task.seed)
        return _probabilities(noisy_outputs(net, x, PASSES, chunk=CHUNK))

    p = alone(task.held.x)
    losses = {t: held_loss((p.log() / t).softmax(-1), task.held) for t in TEMPERATURES.tolist()}
    best = min(losses, key=losses.__getitem__)

    def cooled(x: Tensor) -> Tensor:
        return (alone(x).log() / best).softmax(-1)

    count = _size(net)
    return {
        MAP: Trained(alone, count, seconds),
        COOLED: Trained(cooled, count + 1, seconds, f"{best:.2f}"),
        DROPOUT: Trained(dropped, count, seconds),
    }


def ensemble(task: Task) -> dict[str, Trained]:
    """BatchEnsemble: every member sees its own quarter of a batch, so that a
    step costs that of one network.
    """
    torch.manual_seed(task.seed)
    return {ENSEMBLE: fitted(batch_ensemble(task.net, MEMBERS, initial=near_one(NEAR)), task, draws=1)}


def latent(task: Task, kl_weight: float | None = None) -> dict[str, Trained]:
    """LP-BNN; None for the published weight, of a loss that is a mean over images *and* pixels."""
    torch.manual_seed(task.seed)
    net = latent_rank_one(task.net, MEMBERS, initial=near_one(NEAR), per_member_norm=False)
    with torch.no_grad():
        for layer in net.layers.values():
            assert layer.code is not None
            layer.code.decoder.weight.mul_(NEAR / NOISE)
    weight = kl_weight or published_weight(net, task.train)
    name = PUBLISHED if kl_weight is None else f"{SWEPT}{kl_weight:g}"
    return {name: fitted(net, task, draws=PASSES // MEMBERS, kl_weight=weight)}


def published_weight(net: RankOneNet, data: Scenes) -> float:
    """images * pixels * M / (L + 1): what the published loss gives the KL
    divergence, where Bayes' rule has 1.
    """
    return data.y.numel() * net.members / (len(net.layers) + 1)


def fitted(net: RankOneNet, task: Task, *, draws: int, kl_weight: float | None = None) -> Trained:
    """Members trained on, and `draws` of each member's codes to predict with."""
    torch.manual_seed(task.seed)
    model = RankOneEnsemble(net, likelihoods.pixelwise_categorical, size=len(task.train), kl_weight=kl_weight)
    guide = RankOneGuide(model)
    start = time.process_time()
    train(RankOneELBO(share=True)(model, guide), task.train, epochs=LONGER, batch=BATCH, rate=SLOWER)
    seconds = time.process_time() - start
    drawn = guide.draws(draws)

    def predictor(x: Tensor) -> Tensor:
        return predictive(drawn, x, draws * MEMBERS, model=model, chunk=CHUNK).component_probs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # collapse is what is looked for
        layers = diversity(net).values()
    spread = {key: mean(getattr(layer, key) for layer in layers) for key in ("between", "within", "kl")}
    return Trained(predictor, _size(net), seconds, "" if kl_weight is None else f"{kl_weight:,.0f}", spread)


METHODS: dict[str, Callable[[Task], dict[str, Trained]]] = {
    MAP: plain,
    ENSEMBLE: ensemble,
    PUBLISHED: latent,
    **{f"{SWEPT}{weight:g}": partial(latent, kl_weight=weight) for weight in KL_WEIGHTS},
}
"""{the first method that it gives: what trains it}."""


def held_loss(p: Tensor, held: Scenes) -> float:
    """NLL of a pixel in nats, of probabilities [draw, image, size, size, class]."""
    q = p.mean(0).flatten(0, 2).clamp(min=1e-12)
    return metrics.nll(q / q.sum(-1, keepdim=True), held.y.flatten()).value


def _probabilities(outputs: Tensor) -> Tensor:
    return PredictiveDistribution(likelihoods.pixelwise_categorical(outputs)).component_probs


def _size(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
