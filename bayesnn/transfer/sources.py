"""Sources of the published simulation: a linear predictor, and a network with one hidden layer."""

import copy

import torch
from torch import Tensor, nn

from bayesnn.transfer.ridge import free_constant, logistic_at, with_constant

STRENGTH = 1.0
"""Ridge of the logistic source: its training data are separable, so that no maximum likelihood
estimate exists.
"""
HIDDEN, BATCH, RATE, EPOCHS = 25, 64, 1e-3, 2500
"""Of the published network: Adam's rate, at most so many epochs."""
HELD = 0.1
"""Share of the data that chooses the epoch."""
PATIENCE = 250
"""Epochs without a gain on them, after which no later epoch is tried."""


def linear_source(x: Tensor, y: Tensor, *, binary: bool = False) -> nn.Module:
    """Least squares, or a logistic regression with a ridge of strength 1 on all but the constant:
    a frozen `nn.Linear`.

    Args:
        x: [batch, feature], double.
        y: [batch], real numbers, or zeros and ones.
        binary: which of both.

    >>> x = torch.randn(20, 3).double()
    >>> linear_source(x, x[:, 0])(x[:2]).shape
    torch.Size([2, 1])
    """
    h = with_constant(x)
    if binary:
        weights = logistic_at(h, y, free_constant(h), torch.zeros_like(y), STRENGTH)
    else:
        weights = torch.linalg.lstsq(h, y.unsqueeze(1)).solution.squeeze(1)
    source = nn.Linear(x.shape[1], 1, dtype=torch.double).requires_grad_(requires_grad=False).eval()
    source.weight.copy_(weights[:-1].unsqueeze(0))
    source.bias.copy_(weights[-1:])
    return source


def network_source(x: Tensor, y: Tensor, seed: int, *, binary: bool = False, epochs: int = EPOCHS) -> nn.Module:
    """The published network, linear(25)-ReLU-linear(1), of the epoch with the lowest loss on a
    tenth held out; frozen.

    Its loss is the squared error, for a binary response that of the probability, as published; the
    output is the number or the logit. Training stops after 250 epochs without a gain, which is
    ours.

    Args:
        x: [batch, feature], double.
        y: [batch], real numbers, or zeros and ones.
        seed: of the split, the first weights and the order.
        binary: whether y is zero or one.
        epochs: at most.

    Raises:
        ValueError: fewer than ten examples.

    Reference: Hickey, Williams, Hector (2022), Transfer learning with uncertainty quantification:
    random effect calibration of source to target (RECaST).

    >>> x = torch.randn(20, 3).double()
    >>> network_source(x, x[:, 0], 0, epochs=2)(x[:2]).shape
    torch.Size([2, 1])
    """
    if len(x) < 1 / HELD:
        raise ValueError(f"network_source: {len(x)} examples are too few to hold a tenth out; at least 10 are needed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)).double()
        held, kept = torch.randperm(len(x)).split([int(HELD * len(x)), len(x) - int(HELD * len(x))])
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
        best, state, waited = float("inf"), copy.deepcopy(net.state_dict()), 0
        for _ in range(epochs):
            for part in kept[torch.randperm(len(kept))].split(BATCH):
                optimizer.zero_grad()
                _squared_error(net, x[part], y[part], binary=binary).backward()
                optimizer.step()
            with torch.no_grad():
                now = float(_squared_error(net, x[held], y[held], binary=binary))
            waited += 1
            if now < best:
                best, state, waited = now, copy.deepcopy(net.state_dict()), 0
            if waited > PATIENCE:
                break
    net.load_state_dict(state)
    return net.requires_grad_(requires_grad=False).eval()


def _squared_error(net: nn.Module, x: Tensor, y: Tensor, *, binary: bool) -> Tensor:
    output = net(x).squeeze(1)
    return ((output.sigmoid() if binary else output) - y).square().mean()
