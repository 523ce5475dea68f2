"""Batch normalisation with statistics and weights of each member's own."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bayesnn.models.rank_one.layout import by_member

Separable = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class MemberNorm(_BatchNorm):
    """BatchNorm(x_j; mean_j, variance_j, weight_j, bias_j): each member's block of rows is
    normalised by itself.

    Weights and running statistics are [member, channel], and start as copies of the given layer's.

    Args:
        norm: a BatchNorm1d, 2d or 3d.
        members: how many.
    """

    def __init__(self, norm: Any, members: int) -> None:
        super().__init__(0, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        self.num_features, self.affine = norm.num_features, norm.affine
        self.track_running_stats = norm.track_running_stats
        for name, parameter in norm.named_parameters():
            setattr(self, name, nn.Parameter(parameter.detach().repeat(members, 1)))
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer.repeat(members, 1) if buffer.dim() else buffer.clone())
        self.members, self.kind = members, type(norm)
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        """The normalised inputs, of the same shape [member * batch, channel, ...]."""
        batch_statistics = self.training or self.running_mean is None
        momentum = self._advance() if self.training and self.track_running_stats else 0.0
        vectors: tuple[Tensor | None, ...] = (self.running_mean, self.running_var, self.weight, self.bias)
        count = next((len(vector) for vector in vectors if vector is not None), self.members)
        each = zip(*([None] * count if vector is None else vector for vector in vectors), strict=True)
        blocks = [
            F.batch_norm(rows, mean, variance, weight, bias, batch_statistics, momentum, self.eps)
            for rows, (mean, variance, weight, bias) in zip(by_member(x, count), each, strict=True)
        ]
        return torch.cat(blocks)

    def _advance(self) -> float:
        """Count the batch; the weight of its statistics."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    def plain(self) -> nn.Module:
        """A layer of the given one's kind, for one member; its values mean nothing."""
        layer: nn.Module = self.kind(
            self.num_features,
            self.eps,
            self.momentum,
            affine=self.affine,
            track_running_stats=self.track_running_stats,
            device="meta",
        )
        return layer
