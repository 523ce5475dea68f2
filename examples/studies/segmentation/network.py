"""torchvision's DeepLab on scenes: what goes in, what comes out, and the one way in which every
method trains it.
"""

import os
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.resnet import Bottleneck
from torchvision.models.segmentation import deeplabv3_resnet50

from bayesnn.fit import fit

from examples.studies.segmentation.scenes import CLASSES, Scenes

SMOKE = bool(os.environ.get("SMOKE"))
MIDDLE, SPREAD = 0.45, 0.25
"""Of the colours."""


class Logits(nn.Module):
    """Images [batch, 3, size, size] in [0, 1] -> logits [batch, class, size, size]; convolutions
    in bfloat16.

    Under SMOKE they stay in single precision: a step in bfloat16 takes 40 s on a processor without
    instructions for it. torchvision's segmentation networks return a dict; a likelihood is about
    one tensor of it.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits in single precision."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=not SMOKE):
            logits: Tensor = self.net((x - MIDDLE) / SPREAD)["out"]
        return logits.float()


def deeplab(seed: int) -> Logits:
    """`deeplabv3_resnet50` as it is, 39.6 million weights from nothing; its
    residual branches start at zero.
    """
    torch.manual_seed(seed)
    net = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=len(CLASSES))
    for block in net.modules():
        if isinstance(block, Bottleneck):
            nn.init.zeros_(block.bn3.weight)
    return Logits(net.to(memory_format=torch.channels_last))


def train(
    loss: nn.Module, data: Scenes, *, epochs: int, batch: int, rate: float, checkpoint: Path | None = None
) -> None:
    """Adam whose rate rises for a tenth of the steps and then falls to nothing; dropout and batch
    statistics are on.
    """
    loader = DataLoader(TensorDataset(data.x, data.y), batch_size=batch, shuffle=True, drop_last=True)
    fit(
        loss.train(),
        loader,
        epochs=epochs,
        optimizer=partial(torch.optim.Adam, lr=rate, fused=True),
        schedule=partial(OneCycleLR, max_lr=rate, total_steps=epochs * len(loader), pct_start=0.1),
        checkpoint=checkpoint,
        every=10_000,  # a file of half a gigabyte: at the end alone
        progress=False,
    )
    loss.eval()
