"""The network, and how it is trained: nothing here is Bayesian yet."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from bayesnn.fit import History, fit

from examples.studies.common.choice import Fold
from examples.studies.common.datasets import folds
from examples.studies.common.options import Options

BATCH, RATE = 100, 3e-3


def lenet() -> nn.Sequential:
    """LeNet-5 with rectified units, 61,706 weights; pooling first and
    rectifying then is the same and less work.
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    )  # fmt: skip


class CrossEntropy(nn.Module):
    """-log p(y | x) in nats, the mean over a batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch."""
        return nn.functional.cross_entropy(self.net(x), y)


def train(dataset: TensorDataset, *, seed: int, epochs: int, prior_scale: float = 1.0) -> tuple[nn.Sequential, History]:
    """The maximum a posteriori under w ~ N(0, prior_scale^2), from a random start of its own.

    Per example, the prior's -log density is weight decay 1 / (n prior_scale^2).
    """
    torch.manual_seed(seed)
    net = lenet().to(dataset.tensors[0].device)
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)
    history = fit(
        CrossEntropy(net),
        loader,
        epochs=epochs,
        optimizer=partial(torch.optim.Adam, weight_decay=1 / (len(dataset) * prior_scale**2)),
        schedule=partial(OneCycleLR, max_lr=RATE, total_steps=epochs * len(loader)),
        progress=False,
    )
    return net.eval(), history


def train_all(
    options: Options, data: TensorDataset, prior_scale: float = 1.0
) -> tuple[list[nn.Module], History, list[Fold]]:
    """The ensemble, whose first member is the network to be made Bayesian, and the networks of the
    cross-validation.
    """
    members: list[nn.Module] = []
    held: list[Fold] = []
    first: History | None = None
    with tqdm(total=options.members + options.folds, desc="train", unit="network") as bar:
        for i in range(options.members):
            net, history = train(data, seed=100 * options.seed + i, epochs=options.epochs, prior_scale=prior_scale)
            first = first or history
            members.append(net)
            bar.update()
        for i, (part, validation) in enumerate(folds(data, options.folds)):
            net, _ = train(part, seed=100 * options.seed + 50 + i, epochs=options.epochs, prior_scale=prior_scale)
            held.append(Fold(net, part, validation))
            bar.update()
    assert first is not None
    return members, first, held
