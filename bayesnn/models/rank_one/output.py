"""One tensor of a network that returns several."""

from typing import Any

from torch import Tensor, nn
from typing_extensions import override


class Output(nn.Module):
    """net(x)[key]: the one tensor that the likelihood is about, of a network that returns a dict
    or a tuple.

    >>> class TwoHeads(nn.Module):
    ...     def forward(self, x: Tensor) -> dict[str, Tensor]:
    ...         return {"out": 2 * x, "aux": x}
    >>> import torch
    >>> Output(TwoHeads(), "out")(torch.ones(1))
    tensor([2.])
    """

    def __init__(self, net: nn.Module, key: Any) -> None:
        super().__init__()
        self.net, self.key = net, key
        self.training = net.training

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.net(*args, **kwargs)[self.key]
        return output
