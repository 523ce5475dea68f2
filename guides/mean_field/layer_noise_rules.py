"""The rules of layers whose weights are normal, with separate noise for every example."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor
from torch.nn import functional as F

from bayesnn.guides.mean_field.layer_noise_normalisations import batch_norm, group_norm, layer_norm
from bayesnn.guides.mean_field.layer_noise_tensors import Find, leading


@dataclass(frozen=True)
class Product:
    """One call of a layer that multiplies its input by a random weight: s = multiply(x, weight,
    bias).

    Attributes:
        multiply: (x, weight, bias or None) -> output, linear in both factors.
        x: input.
        mean: the output at the means.
        weight: standard deviations.
        bias: standard deviations, None for a bias that is certain.
        lead: axes of a draw for each example, (batch, 1, ...), before those of `per_channel`; 1
            for a shared draw.
        channel: the axis of units, -1 (linear) or 1 (convolutions).
    """

    multiply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    x: Tensor
    mean: Tensor
    weight: Tensor
    bias: Tensor | None
    lead: tuple[int, ...]
    channel: int

    def per_channel(self, tensor: Tensor) -> tuple[int, ...]:
        """The shape of one number for each example and channel of an input or output."""
        return (*self.lead, tensor.shape[self.channel], *(1,) * (tensor.dim() - len(self.lead) - 1))


Noise: TypeAlias = Callable[[Product], Tensor]
"""The output of a layer with noise, from what is known of it."""


def product(channel: int) -> Callable[..., Tensor]:
    """The rule of linear layers (channel -1) and convolutions (1)."""

    def rule(
        function: Any,
        find: Find,
        batch: int,
        noise: Noise,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *options: Any,
        **more: Any,
    ) -> Tensor:
        def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            out: Tensor = function(x, weight, bias, *options, **more)
            return out

        matrix, shift = find(weight), find(bias)
        lead = leading(input, batch, weight.dim() - 1)
        if matrix is not None:
            mean, scale = multiply(input, weight, bias), None if shift is None else shift.scale
            return noise(Product(multiply, input, mean, matrix.scale, scale, lead, channel))
        assert shift is not None  # the bias alone is random
        out = multiply(input, weight, bias)
        return out + bias_noise(shift.scale, lead, out)

    return rule


def bias_noise(scale: Tensor, lead: tuple[int, ...], out: Tensor) -> Tensor:
    """Noise of a bias, one draw for every example and channel, that broadcasts to an output."""
    noise = scale * scale.new_empty(*lead, len(scale)).normal_()
    return noise.reshape(*noise.shape, *(1,) * (out.dim() - noise.dim()))


RULES: dict[Any, Callable[..., Tensor]] = {
    F.linear: product(-1),
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), product(1)),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), product(1)),
    F.batch_norm: batch_norm,
    F.group_norm: group_norm,
    F.layer_norm: layer_norm,
}
"""{function: rule(function, find, batch, noise, *its own arguments)}."""
