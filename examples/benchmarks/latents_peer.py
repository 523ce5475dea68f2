"""The layers of torch-uncertainty 0.13 in any network, where that package is installed."""

import copy
import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def installed() -> bool:
    """Whether torch-uncertainty can be imported from the environment that runs this."""
    return importlib.util.find_spec("torch_uncertainty") is not None


def batch_ensemble(net: nn.Module, members: int) -> nn.Module:
    """A copy with its BatchEnsemble layers."""
    from torch_uncertainty.layers.batch_ensemble import BatchConv2d, BatchLinear  # type: ignore[import-not-found]

    def converted(layer: Any) -> nn.Module:
        if isinstance(layer, nn.Linear):
            return BatchLinear.from_linear(layer, num_estimators=members)
        return BatchConv2d.from_conv2d(layer, num_estimators=members)

    return _replaced(net, converted)


def lp_bnn(net: nn.Module, members: int) -> nn.Module:
    """A copy with its LP-BNN layers."""
    from torch_uncertainty.layers.bayesian.lpbnn import LPBNNConv2d, LPBNNLinear  # type: ignore[import-not-found]

    def converted(layer: Any) -> nn.Module:
        bias = layer.bias is not None
        if isinstance(layer, nn.Linear):
            return LPBNNLinear(layer.in_features, layer.out_features, members, bias=bias)
        return LPBNNConv2d(
            layer.in_channels,
            layer.out_channels,
            members,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            groups=layer.groups,
            bias=bias,
        )

    return _replaced(net, converted)


def loss(net: nn.Module, rows: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of the tiled rows, and the mean of the layers' terms
    where they have any.
    """
    fit = F.cross_entropy(net(rows), labels)
    terms = [part.log_variational_posterior for part in net.modules() if hasattr(part, "log_variational_posterior")]
    return fit + torch.stack(terms).mean() if terms else fit  # type: ignore[arg-type]


def _replaced(net: nn.Module, converted: Any) -> nn.Module:
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear | nn.Conv2d):
                setattr(parent, name, converted(child))
    return net
