"""A wide residual network for images of 32 x 32: Zagoruyko and Komodakis (2016)."""

from itertools import pairwise

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions, each after normalisation and ReLU, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channel, height, width] -> the same, or fewer pixels of more channels."""
        h = self.bn1(x).relu()
        shortcut = x if self.shortcut is None else self.shortcut(h)
        result: Tensor = shortcut + self.conv2(self.bn2(self.conv1(h)).relu())
        return result


class WideResNet(nn.Module):
    """WRN-depth-width: three groups of blocks with 16, 32, 64 times `width` channels."""

    def __init__(self, depth: int = 16, width: int = 4, classes: int = 10) -> None:
        super().__init__()
        channels = [16, 16 * width, 32 * width, 64 * width]
        blocks: list[nn.Module] = []
        for group, (inputs, outputs) in enumerate(pairwise(channels)):
            strides = [1 if group == 0 else 2] + [1] * ((depth - 4) // 6 - 1)
            blocks += [Block(outputs if i else inputs, outputs, stride) for i, stride in enumerate(strides)]
        self.conv = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.bn, self.fc = nn.BatchNorm2d(channels[-1]), nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [batch, 3, height, width] -> logits [batch, class]."""
        features: Tensor = self.bn(self.blocks(self.conv(x))).relu().mean((2, 3))
        logits: Tensor = self.fc(features)
        return logits
