"""The prior scale of a Laplace approximation, chosen on images that were held
out of the training.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from tqdm import tqdm

from bayesnn import BNN, likelihoods, priors
from bayesnn.curvature import jacobian
from bayesnn.guides import Full, Laplace
from bayesnn.subset import Subset

from examples.studies.common.datasets import batches

SCALES = [float(10**power) for power in torch.linspace(-2, 1, 19)]
DRAWS = 200

Rule = Callable[[nn.Module, TensorDataset], Subset]
"""(network, training data) -> what is random."""


@dataclass(frozen=True)
class Fold:
    """A network that never saw `validation`."""

    net: nn.Module
    train: TensorDataset
    validation: TensorDataset


@dataclass(frozen=True)
class Choice:
    """Mean validation NLL in nats under each prior scale, and that of the networks as they are."""

    nll: list[float]
    without: float

    @property
    def scale(self) -> float:
        """The best of `SCALES`."""
        return SCALES[min(range(len(SCALES)), key=self.nll.__getitem__)]


def choose_scale(rule: Rule, folds: Sequence[Fold], name: str) -> Choice:
    """Cross-validate the prior scale: fit Laplace in every fold, score its
    held-out part under every scale.
    """
    total, without, count = [0.0] * len(SCALES), 0.0, 0
    for fold in tqdm(folds, desc=f"prior of the {name}", unit="fold"):
        model = BNN(fold.net, rule(fold.net, fold.train), priors.normal(1.0), likelihoods.categorical)
        x, y = fold.validation.tensors
        count += len(x)
        with torch.no_grad():
            without += float(nn.functional.cross_entropy(fold.net(x), y, reduction="sum"))
            for i, probs in enumerate(_under_every_scale(model, fold.train, x)):
                total[i] -= float(probs[torch.arange(len(y)), y].log().sum())
    return Choice([value / count for value in total], without / count)


def _under_every_scale(model: BNN, train: TensorDataset, x: Tensor) -> Iterator[Tensor]:
    """p(y | x, D) [batch, class] of the linearised predictive, for every prior scale s in
    `SCALES`.

    With H = Q diag(l) Q^T the covariance (H + 1/s^2)^-1 is Q diag(1 / (l + 1/s^2)) Q^T: one
    decomposition and one Jacobian do for all scales. The same random numbers do too, which makes
    the curve smooth.
    """
    values, full = model.values(), Laplace(model).fit(batches(train)).fitted.curvature
    assert isinstance(full, Full)
    eigenvalues, eigenvectors = torch.linalg.eigh(full.matrix.double())
    parts = [jacobian(model.outputs, values, part) for part in x.split(25)]
    mean = torch.cat([part[0] for part in parts]).double()
    half = torch.cat([part[1] for part in parts]).double() @ eigenvectors
    noise = torch.randn(half.shape[-1], DRAWS, dtype=half.dtype, device=half.device)
    for scale in SCALES:
        # [batch, class, draw]
        deviation = (half / (eigenvalues.clamp(min=0) + scale**-2).sqrt()) @ noise
        yield (mean.unsqueeze(-1) + deviation).softmax(1).mean(-1)


def scale_of(prior: priors.Prior) -> float:
    """The scale of a normal prior that is the same for all weights."""
    return math.sqrt(float(prior("", torch.zeros(1)).variance))
