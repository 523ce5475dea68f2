"""RECaST for continuous and for binary responses: a Pyro model of two or three global numbers."""

from collections.abc import Callable, Mapping, Sequence

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor, nn

from bayesnn.functional import Inputs
from bayesnn.handlers import SurroundingPlates, prefix_of
from bayesnn.models.checks import check_name, check_outside
from bayesnn.models.observe import observe
from bayesnn.models.recast.effects import CauchyEffect, Effect
from bayesnn.models.recast.source import Source, check_source, check_training_predictions, predictions
from bayesnn.scales import moved

PRIORS: Mapping[str, dist.TorchDistribution] = {
    "delta": dist.Normal(1.0, 20.0),
    "log_gamma": dist.Normal(0.0, 3.0),
    "log_sigma": dist.Normal(0.0, 3.0),
}
"""As published: delta is centred at 1, where the target is the source's population; log scales are wide."""


class RECaST(nn.Module):
    """beta_i ~ Cauchy(delta, gamma); y_i ~ N(beta_i f_i, sigma^2) or Bernoulli(expit(beta_i f_i)), beta integrated out.

    A random effect for each target example multiplies the prediction f_i of a frozen source on the link scale. With
    beta integrated out, two or three global numbers are left: delta, log gamma and, for a continuous response, log
    sigma. Make it with `recast.continuous(source)` or `recast.binary(source)`; sample with `guides.recast`, or with
    NUTS as any Pyro model. Predictions are exact mixtures over draws, `predictive(model, draws, x)`; the means of
    Cauchy mixtures do not exist, their medians do: `icdf(0.5)`.

    `outputs` are the location delta f_i and scale gamma |f_i| of the linear predictor beta_i f_i, and sigma, [batch, 2]
    or [batch, 3], in double precision.

    Attributes:
        likelihood: outputs -> distribution of y, [*draw, batch].
        priors: {"delta", "log_gamma"(, "log_sigma")} -> distribution.

    Raises:
        ValueError: a source in training mode or with gradients on; predictions that are not finite, or in training
            constant, zero, or fewer than three; targets that do not fit.

    Reference: Hickey, Williams, Hector (2022), Transfer learning with uncertainty quantification: random effect
    calibration of source to target (RECaST).
    """

    def __init__(
        self,
        source: Source,
        *,
        noise: bool,
        effect: Effect,
        link: Callable[[Tensor], Tensor] | None,
        priors: Mapping[str, dist.TorchDistribution] | None,
        name: str,
    ) -> None:
        super().__init__()
        check_source(source, "RECaST")
        given = dict(priors or {})
        numbers = ("delta", "log_gamma", "log_sigma")[: 3 if noise else 2]
        unknown = sorted(given.keys() - set(numbers))
        if unknown:
            raise ValueError(f"RECaST: there is no prior of {unknown[0]!r}; the numbers are {', '.join(numbers)}")
        for number, prior in given.items():
            if not isinstance(prior, TorchDistributionMixin) or prior.shape():
                raise ValueError(f"RECaST: the prior of {number!r} is a distribution of one number, not {prior}")
        check_name("RECaST", name)
        self._source = (source,)  # in a tuple: it is never trained
        self.effect, self.link, self.noise = effect, link, noise
        self.priors = {number: given.get(number, PRIORS[number]) for number in numbers}
        self.likelihood = effect.continuous if noise else effect.binary
        self.size: int | None = None
        self.name = name
        self.local: frozenset[str] = frozenset()

    @property
    def source(self) -> Source:
        """The frozen source."""
        return self._source[0]

    @property
    def sites(self) -> dict[str, Size]:
        """{site: its shape}: single numbers."""
        return {prefix_of(self.name) + number: Size() for number in self.priors}

    def predictions(self, x: Inputs) -> Tensor:
        """f [batch]: the source's predictions on the link scale, in double precision."""
        return predictions(self.source, self.link, x, "RECaST")

    def training_predictions(self, x: Inputs) -> Tensor:
        """`predictions`, refused where the effect cannot be learned from them."""
        f = self.predictions(x)
        check_training_predictions(f, probabilities=not self.noise and self.link is None, caller="RECaST")
        return f

    def of_predictions(self) -> "RECaST":
        """The same model for predictions f in the place of x: the source is called once for all, beforehand."""
        return RECaST(None, noise=self.noise, effect=self.effect, link=None, priors=self.priors, name=self.name)

    def outputs(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """Location, scale(, sigma) of each example, [*draw, batch, 2 or 3]."""
        return self.outputs_at(values, self.predictions(x))

    def outputs_of_chunks(self, values: Mapping[str, Tensor], parts: Sequence[Inputs]) -> Tensor:
        """`outputs` at consecutive parts of one set of inputs, joined."""
        return self.outputs_at(values, torch.cat([self.predictions(part) for part in parts]))

    def sample(self, x: Inputs) -> Tensor:
        """Draw the global numbers and return the outputs; observes nothing."""
        return self._sample(self.predictions(x))

    def forward(self, x: Inputs, y: Tensor | None = None) -> Tensor:
        """Sample, then observe y (without y: sample it at the site "y"). Returns the outputs."""
        f = self.predictions(x) if y is None else self.training_predictions(x)
        outputs = self._sample(f)
        observe(outputs, self.likelihood, y, name=self.name)
        return outputs

    def outputs_at(self, values: Mapping[str, Tensor], f: Tensor) -> Tensor:
        """`outputs` for predictions f that are known already."""
        prefix = prefix_of(self.name)
        lacking = [prefix + number for number in self.priors if prefix + number not in values]
        if lacking:
            raise ValueError(f"RECaST: no value of {lacking[0]!r}; there are {', '.join(values) or 'none'}")
        held = [values[prefix + number].to(f).unsqueeze(-1) for number in self.priors]
        columns = [held[0] * f, held[1].exp() * f.abs(), *(one.exp().expand_as(held[0] * f) for one in held[2:])]
        return torch.stack(columns, -1)

    def log_joint(self, values: Mapping[str, Tensor], f: Tensor, y: Tensor) -> Tensor:
        """log p(values) + sum_i log p(y_i | f_i, values) in nats, [*draw]: without Pyro, for samplers.

        Args:
            values: {site: [*draw]}, double.
            f: predictions [batch], as `predictions(x)` gives them.
            y: targets [batch].
        """
        prefix = prefix_of(self.name)
        prior = sum(moved(p, f).log_prob(values[prefix + number]) for number, p in self.priors.items())
        return prior + self.likelihood(self.outputs_at(values, f)).log_prob(y.to(f)).sum(-1)

    def _sample(self, f: Tensor) -> Tensor:
        prefix, values = prefix_of(self.name), {}
        with SurroundingPlates() as plates:
            for number, prior in self.priors.items():
                values[prefix + number] = pyro.sample(prefix + number, moved(prior, f))
        check_outside(plates, "RECaST", "its numbers are")
        # Inside plates a number has the data plate's axis already, of size 1.
        depth = plates.depth
        values = {site: value.squeeze(-1) if depth and value.dim() else value for site, value in values.items()}
        return self.outputs_at(values, f)


def continuous(
    source: Source,
    *,
    effect: Effect | None = None,
    priors: Mapping[str, dist.TorchDistribution] | None = None,
    name: str = "",
) -> RECaST:
    """y_i = beta_i f_i + sigma e_i, beta_i ~ Cauchy(delta, gamma): y_i ~ Voigt(delta f_i, sigma, gamma |f_i|).

    Args:
        source: x -> f [batch] or [batch, 1], in units of y; None where x is f itself.
        effect: another family of beta, such as `NormalEffect()`: a comparison, not the published method.
        priors: {"delta", "log_gamma", "log_sigma"} -> distribution, on the scale of y; `PRIORS` otherwise.
        name: prefixes sites and plate.

    Shapes: y [batch].

    >>> model = continuous(None)
    >>> draws = {"delta": torch.ones(9), "log_gamma": torch.zeros(9), "log_sigma": torch.zeros(9)}
    >>> from bayesnn.predict import predictive
    >>> predictive(model, draws, torch.tensor([1.0, -2.0])).icdf(0.5)
    tensor([ 1.0000, -2.0000], dtype=torch.float64)
    """
    return RECaST(source, noise=True, effect=effect or CauchyEffect(), link=None, priors=priors, name=name)


def binary(
    source: Source,
    *,
    link: Callable[[Tensor], Tensor] | None = None,
    effect: Effect | None = None,
    priors: Mapping[str, dist.TorchDistribution] | None = None,
    name: str = "",
) -> RECaST:
    """P(y_i = 1) = E expit(beta_i f_i), beta_i ~ Cauchy(delta, gamma).

    Args:
        source: x -> f [batch] or [batch, 1], logits; None where x is f itself.
        link: what takes the source's predictions to logits: `torch.logit` for probabilities.
        effect: another family of beta: a comparison, not the published method.
        priors: {"delta", "log_gamma"} -> distribution; `PRIORS` otherwise.
        name: prefixes sites and plate.

    Shapes: y [batch], zeros and ones.

    >>> model = binary(None)
    >>> draws = {"delta": torch.ones(9), "log_gamma": torch.tensor(0.5).log().expand(9)}
    >>> from bayesnn.predict import predictive
    >>> predictive(model, draws, torch.tensor([0.7])).probs[:, 1]
    tensor([0.6419], dtype=torch.float64)
    """
    return RECaST(source, noise=False, effect=effect or CauchyEffect(), link=link, priors=priors, name=name)
