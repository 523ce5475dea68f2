"""A prior whose scale keeps a layer's outputs of one size, however wide its input is."""

import math

from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.scales import check


class FanIn(nn.Module):
    """w ~ N(0, gain^2 / fan-in) for matrices and filters; N(0, bias_scale^2) for vectors."""

    def __init__(self, widths: dict[str, int], gain: float, bias_scale: float) -> None:
        super().__init__()
        check("priors.fan_in", gain=gain, bias_scale=bias_scale)
        self.widths, self.gain, self.bias_scale = widths, float(gain), float(bias_scale)

    def forward(self, name: str, value: Tensor) -> dist.TorchDistribution:
        """p(block)."""
        if name not in self.widths:
            raise ValueError(f"priors.fan_in: {name!r} is no parameter of the network that it was made from")
        width = self.widths[name]
        scale = self.gain / math.sqrt(width) if width else self.bias_scale
        return dist.Normal(value.new_zeros(()), value.new_tensor(scale), validate_args=False)

    def extra_repr(self) -> str:
        """Normal(0, gain / sqrt(fan-in))."""
        return f"loc=0, scale={self.gain:.4g}/sqrt(fan-in), vectors {self.bias_scale:.4g}"


def fan_in(net: nn.Module, gain: float = 1.0, bias_scale: float = 1.0) -> FanIn:
    """w ~ N(0, gain^2 / fan-in) for matrices and filters, N(0, bias_scale^2) for vectors (biases,
    normalisation).

    The fan-in of a weight [out, in, ...] is the number of inputs of one output. With
    gain = sqrt(2) pre-activations of a ReLU network keep their variance from layer to layer.

    References: Neal (1996), Bayesian learning for neural networks; He, Zhang, Ren, Sun (2015).

    >>> net = nn.Linear(4, 2)
    >>> fan_in(net)("weight", net.weight.detach()).scale
    tensor(0.5000)
    """
    return FanIn({n: p[0].numel() if p.dim() > 1 else 0 for n, p in net.named_parameters()}, gain, bias_scale)
