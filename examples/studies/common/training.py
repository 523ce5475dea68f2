"""The network, how a loss is trained, and what all methods are given."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.fit import fit

from examples.studies.common.network import CrossEntropy

BATCH, RATE = 50, 3e-3
FASTER = 10.0
"""How much faster variances learn than means."""


@dataclass(frozen=True)
class Task:
    """What every method gets: images to learn from, a seed of the start, passes
    over the images.
    """

    data: TensorDataset
    seed: int
    epochs: int


@dataclass(frozen=True)
class Setting:
    """What is chosen by validation.

    Attributes:
        gain: the prior of a weight is N(0, gain^2 / fan-in), that of a bias N(0, 1); infinite for
            none.
        kl_weight: of the KL divergence; 1 is Bayes' rule.
        rate: SWAG's learning rate.
    """

    gain: float
    kl_weight: float = 1.0
    rate: float = 0.0


def network(seed: int) -> nn.Sequential:
    """Two convolutions and two dense layers, 314,506 weights: several hundred
    for each training image.
    """
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 576), nn.ReLU(),
        nn.Linear(576, 10),
    ).eval()  # fmt: skip


def bayesian(net: nn.Module, setting: Setting, size: int) -> BNN:
    """All weights random under the prior of the setting; `size` is how many
    images the likelihood counts.
    """
    return BNN(net, subset.everything(net), priors.fan_in(net, setting.gain), likelihoods.categorical, size=size)


def loader(task: Task) -> DataLoader[tuple[Tensor, ...]]:
    """The images in batches, shuffled."""
    return DataLoader(task.data, batch_size=BATCH, shuffle=True)


def train(loss: nn.Module, task: Task, setting: Setting, validate: Callable[[], float] | None = None) -> None:
    """Adam, the same number of steps for every method; rates rise for a tenth of them and then
    fall to zero.

    `validate` is called after each pass over the images.
    """
    batches = loader(task)
    steps = task.epochs * len(batches)

    def groups(name: str, parameter: nn.Parameter) -> dict[str, float]:
        if isinstance(loss, CrossEntropy):
            return {"weight_decay": decay(loss.net, name.removeprefix("net."), setting, len(task.data))}
        return {"lr": FASTER * RATE} if name.endswith(("log_scale", "raw")) else {}  # variances

    fit(
        loss,
        batches,
        epochs=task.epochs,
        optimizer=partial(torch.optim.Adam, lr=RATE, foreach=True),
        groups=groups,
        schedule=lambda optimizer: LambdaLR(optimizer, partial(_share, steps)),
        validate=validate,
        progress=False,
    )


def point(task: Task, setting: Setting) -> nn.Module:
    """The maximum a posteriori."""
    net = network(task.seed)
    train(CrossEntropy(net), task, setting)
    return net


def snapshots(net: nn.Module, task: Task, setting: Setting) -> Iterator[nn.Module]:
    """Train on by SGD with a constant rate; the network after every pass over the images."""
    loss = CrossEntropy(copy.deepcopy(net))
    torch.manual_seed(task.seed)
    groups = [
        {"params": [parameter], "weight_decay": decay(loss.net, name, setting, len(task.data))}
        for name, parameter in loss.net.named_parameters()
    ]
    optimizer = torch.optim.SGD(groups, lr=setting.rate, momentum=0.9)
    for _ in range(task.epochs):
        for x, y in loader(task):
            optimizer.zero_grad()
            loss(x, y).backward()
            optimizer.step()
        yield loss.net


def decay(net: nn.Module, name: str, setting: Setting, images: int) -> float:
    """Weight decay that is the prior: 1 / (n s^2) for a loss that is a mean over n images."""
    if setting.gain == math.inf:
        return 0.0
    normal = priors.fan_in(net, setting.gain)(name, net.get_parameter(name).detach())
    return 1 / (images * float(normal.variance.flatten()[0]))


def _share(steps: int, step: int) -> float:
    """Of the learning rate."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
