"""Layers whose training mode makes a network's output random or dependent on the other examples of its batch."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd


def check_evaluation_mode(net: nn.Module, caller: str) -> None:
    """Refuse train-mode batch normalisation and dropout, naming the layer.

    Raises:
        ValueError: a BatchNorm or InstanceNorm layer uses batch statistics, or a dropout is active.
    """
    for name, module in net.named_modules():
        reason = _reason(module)
        if reason:
            where = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
            raise ValueError(f"{caller}: {where} {reason}")


def _reason(module: nn.Module) -> str:
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and isinstance(module, _NormBase):
        if not module.track_running_stats:
            return (
                "keeps no running statistics, so the likelihood of one example depends on the others of its batch; "
                "use BatchNorm with track_running_stats=True, GroupNorm or LayerNorm."
            )
        if module.training:
            return (
                "is in training mode, whose batch statistics make the likelihood depend on the batch; call net.eval()."
            )
    if not module.training:
        return ""
    if isinstance(module, _DropoutNd) or type(module).__name__ == "StochasticDepth":
        rate = getattr(module, "p", 0.0)
    else:  # nn.LSTM, nn.GRU and nn.MultiheadAttention keep a rate of their own
        rate = getattr(module, "dropout", 0.0)
    if isinstance(rate, (int, float)) and rate > 0:
        return "is in training mode and drops units at random, which is no function of the weights; call net.eval()."
    return ""
