"""Outputs of networks that are no Pyro models, in the form that `predict` gives: ensembles, and
networks with noise.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from bayesnn.functional import Inputs, alone, call_chunks, check_evaluation_mode, chunks, progress_bar
from bayesnn.models.inputs import check_inputs
from bayesnn.predict.stochastic_depth import SkippedBlock


@torch.no_grad()
def ensemble_outputs(nets: Sequence[nn.Module], x: Inputs, *, chunk: int = 1000, progress: bool = True) -> Tensor:
    """f_m(x) of every network m, [member, batch, out]: a deep ensemble's draws.

    `PredictiveDistribution(likelihood(ensemble_outputs(nets, x)))` averages probabilities (not
    logits), and every metric and plot takes it from there.

    Args:
        nets: trained networks, in evaluation mode; each may have its own batch normalisation or
            architecture.
        x: inputs.
        chunk: inputs in one pass.
        progress: a bar over the members on stderr.

    Raises:
        ValueError: no networks; one in training mode; outputs of different shapes.

    Reference: Lakshminarayanan, Pritzel, Blundell (2017), Simple and scalable predictive
    uncertainty estimation using deep ensembles.

    >>> ensemble_outputs([nn.Linear(3, 2) for _ in range(4)], torch.zeros(5, 3)).shape
    torch.Size([4, 5, 2])
    """
    if not len(nets):
        raise ValueError("ensemble_outputs: at least one network is needed")
    check_inputs(x)
    parts, member_outputs = list(chunks(x, chunk)), []
    for net in progress_bar(nets, desc="ensemble", unit="network", show=progress):
        check_evaluation_mode(net, "ensemble_outputs")
        member_outputs.append(call_chunks(net, {}, parts))
    shapes = sorted({tuple(outputs.shape[1:]) for outputs in member_outputs})
    if len(shapes) > 1:
        raise ValueError(f"ensemble_outputs: the networks' outputs have different shapes, {shapes}")
    return torch.stack(member_outputs)


@torch.no_grad()
def noisy_outputs(net: nn.Module, x: Inputs, draws: int = 100, *, chunk: int = 1000, progress: bool = True) -> Tensor:
    """f(x; noise_s), [draw, batch, out], with dropout and stochastic depth left on: MC dropout.

    Every dropout layer and every `StochasticDepth` draws, on a copy; all else (batch
    normalisation) stays in evaluation mode. Noise differs between examples, so that a draw is no
    single function.

    Args:
        net: a network, in evaluation mode, that was trained with those layers on.
        x: inputs.
        draws: passes.
        chunk: inputs in one pass.
        progress: a bar over the draws on stderr.

    Raises:
        ValueError: a network without a layer that draws, or in training mode.

    References: Gal, Ghahramani (2016), Dropout as a Bayesian approximation; Huang, Sun, Liu,
    Sedra, Weinberger (2016), Deep networks with stochastic depth.

    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2)).eval()
    >>> noisy_outputs(net, torch.ones(5, 3), 20).std(0).min() > 0
    tensor(True)
    """
    if draws < 1:
        raise ValueError(f"noisy_outputs: at least one draw is needed, not {draws}")
    check_evaluation_mode(net, "noisy_outputs")
    check_inputs(x)
    with alone():
        noisy = copy.deepcopy(net)
    layers = [layer for layer in noisy.modules() if _draws(layer)]
    if not layers:
        raise ValueError(
            f"noisy_outputs: {type(net).__name__} has no dropout layer and no StochasticDepth, so all draws are equal; "
            "add one and train with it, for example with stochastic_depth(net, 0.1)"
        )
    for layer in layers:
        layer.train()
    parts = list(chunks(x, chunk))
    passes = progress_bar(range(draws), desc="noise", unit="draw", show=progress)
    return torch.stack([call_chunks(noisy, {}, parts) for _ in passes])


def _draws(layer: nn.Module) -> bool:
    return isinstance(layer, (_DropoutNd, SkippedBlock)) or type(layer).__name__ == "StochasticDepth"
