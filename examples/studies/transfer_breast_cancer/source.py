"""Sources trained on Rotterdam alone, and frozen: a small network, or a
generalised linear model.
"""

import copy
import os
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn.transfer.ridge import FREE, free_constant, logistic_at, with_constant

from examples.studies.transfer_breast_cancer.cohorts import rotterdam
from examples.studies.transfer_breast_cancer.response import Response, labelled

HIDDEN, RATE, DECAY, BATCH = 16, 3e-3, 1e-3, 64
EPOCHS, PATIENCE = (2, 1) if os.environ.get("SMOKE") else (300, 20)
VALIDATION = 0.2
"""Share of Rotterdam that chooses when to stop."""


@dataclass(frozen=True, eq=False)
class Source:
    """A frozen network of standardised features, and its own data.

    Attributes:
        net: features -> f [batch, 1] on the link scale, double.
        centre, unit: a feature is standardised as (x - centre) / unit, by the source's training
            part.
        x, y: all of its data, standardised.
        held: rows of the validation part.
    """

    net: nn.Module
    centre: Tensor
    unit: Tensor
    x: Tensor
    y: Tensor
    held: Tensor

    def standardised(self, features: Tensor) -> Tensor:
        """In the source's units."""
        return (features - self.centre) / self.unit


@cache
def trained(response: Response, *, linear: bool = False, node_negative: bool = False, seed: int = 0) -> Source:
    """The source of a response: 80 % of Rotterdam to learn from, 20 % to stop by.

    Args:
        response: what it predicts.
        linear: least squares or logistic regression instead of a network with one hidden layer.
        node_negative: trained on patients without positive lymph nodes only. The number of nodes
            is then a feature that never varies, and the source ignores it.
        seed: of the split, the thinning of early events and the start.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cohort = rotterdam()
        cohort = cohort.rows(cohort.columns["nodes"] == 0) if node_negative else cohort
        features, y = labelled(cohort, response)
        order = torch.randperm(len(y))
        held, learned = order[: int(VALIDATION * len(y))], order[int(VALIDATION * len(y)) :]
        centre, unit = features[learned].mean(0), features[learned].std(0)
        unit = torch.where(unit > 0, unit, 1.0)
        x = (features - centre) / unit
        if linear:
            net: nn.Module = _linear(x[learned], y[learned], response)
        else:
            net = _network((x[learned], y[learned]), (x[held], y[held]), response)
    return Source(net.requires_grad_(requires_grad=False).eval(), centre, unit, x, y, held)


def loss_of(outputs: Tensor, y: Tensor, response: Response) -> Tensor:
    """Mean log loss in nats, or mean squared error."""
    f = outputs.reshape(-1)
    return F.binary_cross_entropy_with_logits(f, y) if response.binary else F.mse_loss(f, y)


def _network(learned: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], response: Response) -> nn.Module:
    """Adam with weight decay, the epoch with the lowest validation loss."""
    x, y = learned
    first = nn.Linear(x.shape[1], HIDDEN)
    net = nn.Sequential(first, nn.ReLU(), nn.Linear(HIDDEN, 1)).double()
    with torch.no_grad():
        # what never varies has no gradient: its start would stay
        first.weight[:, x.std(0) == 0] = 0.0
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    best, state, waited = float("inf"), copy.deepcopy(net.state_dict()), 0
    for _ in range(EPOCHS):
        for part in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            loss_of(net(x[part]), y[part], response).backward()
            optimizer.step()
        with torch.no_grad():
            now = float(loss_of(net(held[0]), held[1], response))
        best, waited, state = (now, 0, copy.deepcopy(net.state_dict())) if now < best else (best, waited + 1, state)
        if waited > PATIENCE:
            break
    net.load_state_dict(state)
    return net


def _linear(x: Tensor, y: Tensor, response: Response) -> nn.Module:
    """Maximum likelihood."""
    h = with_constant(x)
    if response.binary:
        weights = logistic_at(h, y, free_constant(h), torch.zeros_like(y), FREE)
    else:
        weights = torch.linalg.lstsq(h, y.unsqueeze(1)).solution.squeeze(1)
    net = nn.Linear(x.shape[1], 1).double().requires_grad_(requires_grad=False)
    net.weight.copy_(weights[:-1].unsqueeze(0))
    net.bias.copy_(weights[-1:])
    return net
