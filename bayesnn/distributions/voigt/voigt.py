"""`Voigt`: a normal plus an independent Cauchy variable."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from typing_extensions import override

from bayesnn.distributions.voigt.cdf import cdf, quantile
from bayesnn.distributions.voigt.density import log_density


class Voigt(TorchDistribution):
    """y = loc + scale_normal Z + scale_cauchy C with independent Z ~ N(0, 1) and C ~ Cauchy(0, 1).

    With sigma = scale_normal and gamma = scale_cauchy the density is

        p(y) = Re w(z) / (sigma sqrt(2 pi)), z = (y - loc + i gamma) / (sigma sqrt 2),

    where w is the Faddeeva function. It is N(loc, sigma^2) for gamma = 0, which is allowed, and
    tends to Cauchy(loc, gamma) for sigma -> 0. Density, cdf, quantiles and all their gradients are
    computed in double precision whatever the dtype of the arguments, to a relative accuracy of
    1e-12 for gamma / sigma from 0 to 1e5; second derivatives exist too, third ones do not. Draws
    are reparameterised.

    No moment exists: the mean is NaN and the variance infinite unless gamma = 0. Use the median,
    which is loc, and intervals between quantiles.

    Args:
        loc: centre of symmetry, in units of y.
        scale_normal: standard deviation sigma > 0 of the normal part, in units of y.
        scale_cauchy: half width at half maximum gamma >= 0 of the Cauchy part, in units of y.

    Shapes: the arguments broadcast to the batch shape; y is one number. Units: log densities in
    nats.

    Raises:
        ValueError: scales out of their range, NaN, or a probability outside [0, 1].

    Reference: Voigt, Sitzungsberichte der Bayerischen Akademie (1912); as the likelihood of a
    random effect in Hickey, Williams and Hector, "Transfer learning with uncertainty
    quantification: random effect calibration of source to target (RECaST)", arXiv 2211.16557.

    >>> y = Voigt(0.0, 0.5, torch.tensor([0.0, 0.35]))
    >>> y.icdf(torch.tensor(0.975))
    tensor([0.9800, 4.5038])
    >>> y.cdf(torch.tensor(1.0))
    tensor([0.9772, 0.8590])
    """

    arg_constraints: ClassVar[dict] = {
        "loc": constraints.real,
        "scale_normal": constraints.positive,
        "scale_cauchy": constraints.nonnegative,
    }
    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        loc: Tensor | float,
        scale_normal: Tensor | float,
        scale_cauchy: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale_normal, self.scale_cauchy = broadcast_all(loc, scale_normal, scale_cauchy)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """NaN: it does not exist unless scale_cauchy = 0."""
        return torch.where(self.scale_cauchy > 0, torch.nan, self.loc)

    @property
    def variance(self) -> Tensor:
        """Infinite unless scale_cauchy = 0."""
        return torch.where(self.scale_cauchy > 0, torch.inf, self.scale_normal**2)

    @property
    def mode(self) -> Tensor:
        """loc."""
        return self.loc

    @override
    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Voigt":
        new = self._get_checked_instance(Voigt, _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(Size(batch_shape)))
        super(Voigt, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @override
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        normal, cauchy = self.loc.new_empty(shape).normal_(), self.loc.new_empty(shape).cauchy_()
        return self.loc + self.scale_normal * normal + self.scale_cauchy * cauchy

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        deviation, sigma, gamma = self._in_double(value)
        return log_density(deviation - self.loc, sigma, gamma).to(self.loc.dtype)

    @override
    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        deviation, sigma, gamma = self._in_double(value)
        return cdf(deviation - self.loc, sigma, gamma).to(self.loc.dtype)

    @override
    def icdf(self, value: Tensor) -> Tensor:
        if self._validate_args and not bool(((value >= 0) & (value <= 1)).all()):
            raise ValueError(f"Voigt.icdf: probabilities lie in [0, 1], not {value.tolist()}")
        probability, sigma, gamma = self._in_double(value)
        return (quantile(probability, sigma, gamma) + self.loc).to(self.loc.dtype)

    def _in_double(self, value: Tensor) -> Sequence[Tensor]:
        return torch.broadcast_tensors(value.double(), self.scale_normal.double(), self.scale_cauchy.double())
