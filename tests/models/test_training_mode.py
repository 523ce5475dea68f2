"""Layers in training mode are refused, when a model is made and whenever it is called."""

from collections.abc import Callable

import pytest
import torch
from conftest import Untouched
from nets import NETS
from torch import nn

from bayesnn import BNN, likelihoods, priors
from bayesnn.subset import everything


def _swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    rates = {"dropout": 0.0, "stochastic_depth_prob": 0.0}
    return SwinTransformer([4, 4], 8, [2], [2], [4, 4], num_classes=2, attention_dropout=0.1, **rates)


def _densenet() -> nn.Module:
    from torchvision.models import DenseNet

    net = DenseNet(4, (1, 1), 8, num_classes=2, drop_rate=0.1).train()
    for module in net.modules():
        module.train(not isinstance(module, nn.BatchNorm2d))
    return net


def _stochastic_depth() -> nn.Module:
    from torchvision.ops import StochasticDepth

    return nn.Sequential(nn.Linear(3, 2), StochasticDepth(0.1, "row"))


TRAINING: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch norm": (lambda: NETS["batch_norm"]()[0], r"BNN: '1' \(BatchNorm1d\) is in training mode, .* net.eval\(\)"),
    "dropout": (lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout()), r"'1' \(Dropout\) .* drops units.* net.eval"),
    "alpha dropout": (lambda: nn.Sequential(nn.Linear(3, 2), nn.AlphaDropout()), r"'1' \(AlphaDropout\)"),
    "lstm": (lambda: nn.Sequential(nn.LSTM(3, 2, 2, dropout=0.1)), r"'0' \(LSTM\) .* net.eval"),
    "attention": (lambda: nn.MultiheadAttention(4, 2, dropout=0.1), "BNN: MultiheadAttention is in training mode"),
    "encoder": (lambda: NETS["encoder"]()[0], r"'layer.self_attn' \(MultiheadAttention\)"),
    "stochastic depth": (_stochastic_depth, r"'1' \(StochasticDepth\)"),
    "swin": (_swin, r"ShiftedWindowAttention"),
    "densenet": (_densenet, r"_DenseLayer"),
}


@pytest.mark.parametrize("case", TRAINING)
def test_training_mode_is_refused_when_made_and_when_called(case: str, untouched: Untouched) -> None:
    build, message = TRAINING[case]
    net = build()
    if case != "densenet":  # whose batch normalisation alone is in evaluation mode
        net.train()
    with untouched(net), pytest.raises(ValueError, match=message):
        BNN(net, everything(net), priors.normal(), likelihoods.categorical)
    modes = [module.training for module in net.modules()]
    model = BNN(net.eval(), everything(net), priors.normal(), likelihoods.categorical)
    for module, mode in zip(net.modules(), modes, strict=True):
        module.training = mode
    with untouched(net), pytest.raises(ValueError, match=message):
        model(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))


def test_batch_norm_without_running_statistics_is_refused_in_either_mode() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match=r"'1' \(BatchNorm1d\) keeps no running statistics"):
        BNN(net, everything(net), priors.normal(), likelihoods.categorical)


@pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.LayerNorm(2), nn.GroupNorm(1, 2)])
def test_training_mode_without_effect_is_not_refused(layer: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(3, 2), layer)
    assert BNN(net, everything(net), priors.normal(), likelihoods.categorical)(torch.randn(4, 3)).shape == (4, 2)
