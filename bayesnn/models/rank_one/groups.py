"""Parameter groups: which parameters an optimiser may decay."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bayesnn.scales import Learned


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """[shared weights, with weight decay; the members' own, without]: parameter groups for a torch
    optimiser.

    Without decay are what the layers say of themselves (`undecayed()`), that is r, s, bias of
    every converted layer, the decoders' biases of encoded vectors and the scales of a
    `RankOneGuide`, and learned scales of the likelihood. Decay would pull r and s to 0, which
    switches units off, and the members together. Frozen parameters are left out. A published
    variant trains the second group at half the learning rate: `groups[1]["lr"] = ...`.

    Args:
        module: a `RankOneNet`, a model of one, or the loss module.
        weight_decay: of the first group.

    >>> import torch
    >>> from bayesnn.models import batch_ensemble
    >>> groups = parameter_groups(batch_ensemble(nn.Linear(3, 2), members=4), weight_decay=5e-4)
    >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
    [(1, 0.0005), (3, 0.0)]
    """
    kept = _undecayed(module)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in kept], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in kept], "weight_decay": 0.0},
    ]


def without_decay(module: nn.Module) -> Callable[[str, nn.Parameter], dict[str, float]]:
    """The optimiser's options of a parameter, for the option `groups` of `fit`.

    They are {"weight_decay": 0.0} for the members' own parameters and {} for others.

    The optimiser's own weight decay then is that of the shared weights::

        optimizer = partial(torch.optim.SGD, lr=0.1, weight_decay=5e-4)
        fit(loss, loader, epochs=250, optimizer=optimizer, groups=without_decay(loss))

    Args:
        module: the loss module that is fitted.
    """
    kept = _undecayed(module)

    def options(name: str, parameter: nn.Parameter) -> dict[str, float]:
        return {"weight_decay": 0.0} if id(parameter) in kept else {}

    return options


def _undecayed(module: nn.Module) -> set[int]:
    parts: list[Any] = [part for part in module.modules() if hasattr(part, "undecayed")]
    scales = [parameter for part in module.modules() if isinstance(part, Learned) for parameter in part.parameters()]
    return {id(parameter) for part in parts for parameter in part.undecayed()} | {id(scale) for scale in scales}
