"""A prior centred at pretrained weights."""

from collections.abc import Mapping

from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.scales import Scale, check, describe, resolve


class Around(nn.Module):
    """w ~ N(centre, scale^2), independently."""

    def __init__(self, centre: Mapping[str, Tensor], scale: Scale) -> None:
        super().__init__()
        check("priors.around", scale=scale)
        self.scale = scale
        self.centre = {name: value.detach().clone() for name, value in centre.items()}

    def forward(self, name: str, value: Tensor) -> dist.TorchDistribution:
        """p(block)."""
        if name not in self.centre:
            raise ValueError(f"priors.around: no centre for {name!r}; the centres are {', '.join(self.centre)}")
        centre = self.centre[name].to(device=value.device, dtype=value.dtype)
        if centre.shape != value.shape:
            raise ValueError(
                f"priors.around: the centre of {name!r} has shape {tuple(centre.shape)}, its random entries have shape "
                f"{tuple(value.shape)}; where only some entries are random give around(subset.take(net), ...)"
            )
        # A clone: a guide that starts at the prior's mean would otherwise train the centre itself,
        # in place.
        return dist.Normal(
            centre.clone(), resolve(f"{name}_scale", self.scale, value, value.dim()), validate_args=False
        )

    def extra_repr(self) -> str:
        """Normal(centre, scale)."""
        return f"loc=pretrained, scale={describe(self.scale)}"


def around(centre: nn.Module | Mapping[str, Tensor], scale: Scale = 0.1) -> Around:
    """w ~ N(w_0, scale^2) around pretrained weights w_0: the prior of transfer learning.

    Args:
        centre: the pretrained network (its weights are copied now), or {parameter name: value}.
            Where only some entries of a parameter are random: `subset.take(net)`.
        scale: as in `priors.normal`, in units of the weights.

    >>> net = nn.Linear(2, 1)
    >>> bool((around(net, 0.1)("bias", net.bias.detach()).loc == net.bias).all())
    True
    """
    return Around(dict(centre.named_parameters()) if isinstance(centre, nn.Module) else centre, scale)
