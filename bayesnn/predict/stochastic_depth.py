"""Residual networks whose blocks are skipped at random."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override


def stochastic_depth(net: nn.Module, p: float = 0.1, *, blocks: Sequence[type[nn.Module]] = ()) -> nn.Module:
    """A copy of a residual network whose blocks are skipped at random: block l of L with
    probability p l / L.

    A skipped block is the identity, for each example by itself. Where a block ends as
    relu(F(x) + x), as ResNet's do, that is relu(0 + x) = x, the published rule; in evaluation mode
    blocks are never skipped, and outputs are not scaled by survival probabilities: predict with
    `noisy_outputs`, which averages over the skips. Train it as usual, in training mode.

    Args:
        net: a network with residual blocks.
        p: probability of the last block, below 1.
        blocks: types of the blocks; torchvision's BasicBlock and Bottleneck by default. Blocks
            that change the shape (with a `downsample`) are kept as they are.

    Raises:
        ValueError: p out of range, or no block of these types that keeps its shape.

    Reference: Huang, Sun, Liu, Sedra, Weinberger (2016), Deep networks with stochastic depth.

    >>> from torchvision.models import resnet18
    >>> sum(isinstance(layer, SkippedBlock) for layer in stochastic_depth(resnet18()).modules())
    5
    """
    if not 0 < p < 1:
        raise ValueError(f"stochastic_depth: p is a probability above 0 and below 1, not {p}")
    kinds = tuple(blocks) or _residual_blocks()
    result = copy.deepcopy(net)
    named_blocks = [
        (name, block)
        for name, block in result.named_modules()
        if isinstance(block, kinds) and name and getattr(block, "downsample", None) is None
    ]
    if not named_blocks:
        raise ValueError(
            f"stochastic_depth: {type(net).__name__} has no {' or '.join(kind.__name__ for kind in kinds)} that keeps "
            "the shape of its input; name the types of its residual blocks, blocks=(Block,)"
        )
    for place, (name, block) in enumerate(named_blocks, 1):
        holder, _, last = name.rpartition(".")
        setattr(result.get_submodule(holder), last, SkippedBlock(block, p * place / len(named_blocks)))
    return result


class SkippedBlock(nn.Module):
    """y = x with probability p, else block(x), for each example; in evaluation
    mode always block(x).
    """

    def __init__(self, block: nn.Module, p: float) -> None:
        super().__init__()
        self.block, self.p = block, p
        self.training = block.training

    @override
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        if not self.training:
            return y
        skipped = torch.rand(len(x), device=x.device).reshape(-1, *(1,) * (x.dim() - 1)) < self.p
        return torch.where(skipped, x, y)


def _residual_blocks() -> tuple[type[nn.Module], ...]:
    # slow to import, and only this needs it
    from torchvision.models.resnet import BasicBlock, Bottleneck

    return BasicBlock, Bottleneck
