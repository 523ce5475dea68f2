"""What `laplace.py` measures: networks, data, and the approximations of each."""

import copy
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import fisher, laplace
from bayesnn.subset import Subset

from examples.benchmarks.nets import lenet, mlp

BATCH = 64
CHUNK = 50
WEIGHTS = 500  # of a sub-network

Clock = Callable[[], float]
"""Does something and returns the CPU seconds that it took."""

SUBSETS: Mapping[str, Callable[[nn.Module], Subset]] = {
    "last_layer": subset.last_layer,
    "subnetwork": lambda net: subset.random(net, WEIGHTS, generator=torch.Generator().manual_seed(0)),
    "all": subset.everything,
}
STRUCTURES: Mapping[str, Any] = {"full": laplace.Full, "kron": laplace.Kronecker, "diag": laplace.Diagonal}


@dataclass(frozen=True)
class Case:
    """One approximation of one network, named as laplace-torch names it.

    Attributes:
        bound: of the fit's ratio.
        peer_examples, peer_batch: what laplace-torch is given, where its Jacobians are too large
            for the same.
        decomposed: time what the first use adds, too.
    """

    net: str
    what: str
    subset: str
    structure: str
    stochastic: bool = False
    examples: int = 512
    bound: float | None = None
    peer_examples: int | None = None
    peer_batch: int = BATCH
    decomposed: bool = True

    def request(self, do: str, **more: Any) -> dict[str, Any]:
        """For laplace-torch's process."""
        found = {name: getattr(self, name) for name in ("net", "subset", "structure", "stochastic")}
        return {"do": do, "examples": self.peer_examples or self.examples, "batch": self.peer_batch, **found, **more}


class Bench:
    """Networks with data, and our approximations of them.

    Args:
        examples: of training data, for each network.
        inputs: to predict at.
    """

    def __init__(self, examples: int, inputs: int, *, large: bool) -> None:
        made: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
            "LeNet": (lenet, (1, 28, 28)),
            "MLP": (mlp, (784,)),
        }
        if large:
            made["ResNet-18"] = (functools.partial(resnet18, weights=None, num_classes=10), (3, 32, 32))
        self.nets = {name: make().eval() for name, (make, _) in made.items()}
        self.data = {
            name: (torch.rand(examples, *shape), torch.randint(0, 10, (examples,))) for name, (_, shape) in made.items()
        }
        self.inputs = {name: torch.rand(inputs, *shape) for name, (_, shape) in made.items()}
        self.subsets = {(name, k): choose(net) for name, net in self.nets.items() for k, choose in SUBSETS.items()}

    def job(self) -> dict[str, Any]:
        """The same for laplace-torch's process."""
        indices = {name: flat_indices(net, self.subsets[name, "subnetwork"]) for name, net in self.nets.items()}
        return {"nets": self.nets, "data": self.data, "inputs": self.inputs, "indices": indices}

    def batches(self, case: Case, size: int = BATCH, examples: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """A case's training data."""
        x, y = (part[: examples or case.examples] for part in self.data[case.net])
        return list(zip(x.split(size), y.split(size), strict=True))

    def guide(self, case: Case) -> laplace.Laplace:
        """Not yet fitted."""
        net, chosen = self.nets[case.net], self.subsets[case.net, case.subset]
        model = BNN(net, chosen, priors.normal(1.0), likelihoods.categorical, size=case.examples)
        way = fisher.MonteCarloFisher() if case.stochastic else fisher.ExactFisher()
        return laplace.Laplace(model, structure=STRUCTURES[case.structure], fisher=way)

    def epoch(self, case: Case, size: int = BATCH, examples: int | None = None) -> Clock:
        """One epoch of Adam over the case's data."""
        net = copy.deepcopy(self.nets[case.net]).train()
        optimizer, batches = torch.optim.Adam(net.parameters()), self.batches(case, size, examples)

        def run() -> None:
            for x, y in batches:
                optimizer.zero_grad()
                F.cross_entropy(net(x), y).backward()
                optimizer.step()

        return timed(run)

    def forward(self, name: str, inputs: int, chunk: int = CHUNK) -> Clock:
        """The plain forward passes for so many inputs: their share of those for all, which take
        time to measure.
        """
        net, x = self.nets[name], self.inputs[name]

        def run() -> None:
            with torch.no_grad():
                torch.cat([net(part) for part in x.split(chunk)])

        clock = timed(run)
        return lambda: clock() * inputs / len(x)


def timed(action: Callable[[], object]) -> Clock:
    """The action's CPU seconds."""

    def clock() -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    return clock


def flat_indices(net: nn.Module, chosen: Subset) -> Tensor:
    """Of a subset's entries among all parameters in a row."""
    values = dict(net.named_parameters())
    marks = {name: torch.zeros(value.numel(), dtype=torch.bool) for name, value in values.items()}
    for name, index in chosen.index.items():
        marks[name][slice(None) if index is None else index] = True
    return torch.cat(list(marks.values())).nonzero().flatten()
