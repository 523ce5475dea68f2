"""Normal priors with a latent scale for every block."""

from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.priors.families import Normal
from bayesnn.scales import check, resolve


class LatentVariance(nn.Module):
    """w | v ~ N(0, v), v ~ variance, one v a block."""

    def __init__(self, variance: dist.TorchDistribution) -> None:
        super().__init__()
        check("priors.hierarchical", variance=variance)
        self.variance = variance

    def forward(self, name: str, value: Tensor) -> dist.TorchDistribution:
        """p(block | variance)."""
        variance = resolve(f"{name}_variance", self.variance, value, value.dim())
        return dist.Normal(value.new_zeros(()), variance.sqrt(), validate_args=False)

    def extra_repr(self) -> str:
        """Normal(0, sqrt(variance))."""
        return f"loc=0, variance=latent {type(self.variance).__name__}"


def hierarchical(
    *, scale: dist.TorchDistribution | None = None, variance: dist.TorchDistribution | None = None
) -> Normal | LatentVariance:
    """w | s ~ N(0, s^2) with a latent s (or s^2) for every block, learned from the weights of that
    block.

    Args:
        scale: the prior of s, for example `HalfCauchy(1.0)`; its site is `"<parameter>_scale"`.
        variance: the prior of s^2, for example `InverseGamma(2.0, 1.0)`; its site is
            `"<parameter>_variance"`.

    Raises:
        TypeError: not exactly one of the two is given.

    References: Gelman (2006), Prior distributions for variance parameters in hierarchical models;
    MacKay (1992).

    >>> import torch
    >>> from pyro import poutine
    >>> prior = hierarchical(scale=dist.HalfCauchy(1.0))
    >>> list(poutine.trace(prior).get_trace("fc.weight", torch.zeros(2, 3)).stochastic_nodes)
    ['fc.weight_scale']
    """
    if (scale is None) == (variance is None):
        raise TypeError("hierarchical: give exactly one of scale= and variance=, a Pyro distribution")
    if scale is not None:
        _check_distribution(scale)
        return Normal(scale)
    assert variance is not None
    _check_distribution(variance)
    return LatentVariance(variance)


def _check_distribution(value: object) -> None:
    if not isinstance(value, dist.Distribution):
        raise TypeError(
            f"hierarchical: a distribution of pyro.distributions is needed, not {value!r}; for a fixed scale use "
            "normal(...)"
        )
