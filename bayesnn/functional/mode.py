"""Layers whose training mode makes a network's output random or dependent on
the other examples of its batch.
"""

from collections.abc import Mapping

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

_SKIPPING = ("StochasticDepth", "SkippedBlock")
"""By name: torchvision's and our own, from a room that this one may not import."""

_RATES = ("dropout", "attention_dropout", "drop_rate")
"""Where layers that call `F.dropout` themselves keep its rate: LSTM, GRU,
attention, torchvision's Swin, DenseNet.
"""


def check_evaluation_mode(net: nn.Module, caller: str) -> None:
    """Refuse train-mode batch normalisation and dropout, naming the layer.

    Raises:
        ValueError: a BatchNorm layer uses batch statistics, or a dropout is active.
    """
    check_layers(mode_dependent(net), caller)


def mode_dependent(net: nn.Module) -> dict[str, nn.Module]:
    """{name: layer} of the layers whose output depends on the mode: all that `check_layers` needs
    to look at again.
    """
    return {name: module for name, module in net.named_modules() if _depends_on_mode(module)}


def check_layers(layers: Mapping[str, nn.Module], caller: str) -> None:
    """`check_evaluation_mode` of layers found before."""
    for name, module in layers.items():
        reason = _reason(module)
        if reason:
            where = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
            raise ValueError(f"{caller}: {where} {reason}")


def _depends_on_mode(module: nn.Module) -> bool:
    layer = isinstance(module, (_BatchNorm, _DropoutNd)) or type(module).__name__ in _SKIPPING
    return layer or any(hasattr(module, rate) for rate in _RATES)


def _reason(module: nn.Module) -> str:
    if isinstance(module, _BatchNorm) and not module.track_running_stats:
        return (
            "keeps no running statistics, so the likelihood of one example depends on the others of its batch; "
            "use BatchNorm with track_running_stats=True, GroupNorm or LayerNorm."
        )
    if not module.training:
        return ""
    if isinstance(module, _BatchNorm):
        return "is in training mode, whose batch statistics make the likelihood depend on the batch; call net.eval()."
    if isinstance(module, _DropoutNd) or type(module).__name__ in _SKIPPING:
        rates = [getattr(module, "p", 0.0)]
    else:
        rates = [getattr(module, rate, 0.0) for rate in _RATES]
    if any(isinstance(rate, (int, float)) and rate > 0 for rate in rates):
        return "is in training mode and drops units at random, which is no function of the weights; call net.eval()."
    return ""
