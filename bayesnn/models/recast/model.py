"""RECaST: a Pyro model of two or three global numbers, for any response."""

import math
from collections.abc import Callable, Mapping, Sequence

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor, nn

from bayesnn.functional import Inputs
from bayesnn.handlers import SurroundingPlates, prefix_of
from bayesnn.models.checks import check_name, check_outside
from bayesnn.models.observe import check_target, observe
from bayesnn.models.recast.effects import CauchyEffect, Effect
from bayesnn.models.recast.responses import Response
from bayesnn.models.recast.source import Source, check_source, checked
from bayesnn.models.recast.source_draws import SourceDraws
from bayesnn.scales import moved

PRIORS: Mapping[str, dist.TorchDistribution] = {
    "delta": dist.Normal(1.0, 20.0),
    "log_gamma": dist.Normal(0.0, 3.0),
    "log_sigma": dist.Normal(0.0, 3.0),
}
"""As published: delta is centred at 1, where the target is the source's
population; log scales are wide.
"""


class RECaST(nn.Module):
    """beta_i ~ Cauchy(delta, gamma); y_i ~ N(beta_i f_i, sigma^2) or Bernoulli(expit(beta_i f_i)),
    beta integrated out.

    A random effect for each target example multiplies the prediction f_i of a frozen source on the
    link scale. With beta integrated out, two or three global numbers are left: delta, log gamma
    and, for a continuous response, log sigma. Make it with `recast.continuous(source)`,
    `recast.binary(source)` or `recast.categorical(source)`; sample with `guides.recast`, or with
    NUTS as any Pyro model. Predictions are exact mixtures over draws,
    `predictive(draws, x, model=model)`; the means of Cauchy mixtures do not exist, their medians
    do: `icdf(0.5)`.

    `outputs` are what the likelihood takes, in double precision: the location delta f_i and scale
    gamma |f_i| of the linear predictor beta_i f_i, [batch, 2], and sigma, [batch, 3]; for labels
    delta, gamma and the centred logits.

    A source may be uncertain itself, `SourceDraws`: then the index of its draw is one more site,
    "source". Predictions of many draws are faster as `predictive(draws, model.predictions(x),
    model=model.of_predictions())`, which calls it once.

    Attributes:
        likelihood: outputs -> distribution of y, [*draw, batch].
        priors: {"delta", "log_gamma"(, "log_sigma")} -> distribution.
        response: what y is.

    Raises:
        ValueError: a source in training mode or with gradients on; predictions that are not
            finite, or in training constant, zero, or fewer than three; targets that do not fit.

    Reference: Hickey, Williams, Hector (2022), Transfer learning with uncertainty quantification:
    random effect calibration of source to target (RECaST).
    """

    def __init__(
        self,
        source: Source,
        *,
        response: Response,
        effect: Effect | None = None,
        link: Callable[[Tensor], Tensor] | None = None,
        priors: Mapping[str, dist.TorchDistribution] | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        check_source(source, "RECaST")
        given = dict(priors or {})
        unknown = sorted(given.keys() - set(response.numbers))
        if unknown:
            raise ValueError(
                f"RECaST: there is no prior of {unknown[0]!r}; the numbers are {', '.join(response.numbers)}"
            )
        for number, prior in given.items():
            if not isinstance(prior, TorchDistributionMixin) or prior.shape():
                raise ValueError(f"RECaST: the prior of {number!r} is a distribution of one number, not {prior}")
        check_name("RECaST", name)
        self._source = (source,)  # in a tuple: it is never trained
        self.response, self.effect, self.link = response, CauchyEffect() if effect is None else effect, link
        self.priors = {number: given.get(number, PRIORS[number]) for number in response.numbers}
        self.likelihood = response.likelihood(self.effect)
        self.size: int | None = None
        self.name = name
        self.local: frozenset[str] = frozenset()

    @property
    def source(self) -> Source:
        """The frozen source."""
        return self._source[0]

    @property
    def source_count(self) -> int:
        """The number of draws of the source's predictions; 1 for a source that is certain."""
        return self.source.count if isinstance(self.source, SourceDraws) else 1

    @property
    def with_noise(self) -> bool:
        """Whether y has a noise scale sigma."""
        return "log_sigma" in self.priors

    @property
    def sites(self) -> dict[str, Size]:
        """{site: its shape} of the numbers, and of the index "source" of an uncertain source."""
        index = [prefix_of(self.name) + "source"] if self.source_count > 1 else []
        return dict.fromkeys([*self.number_sites, *index], Size())

    @property
    def number_sites(self) -> list[str]:
        """The sites of the numbers, without the index of the source."""
        return [prefix_of(self.name) + number for number in self.priors]

    def predictions(self, x: Inputs) -> Tensor:
        """The source's predictions on the link scale, in double precision.

        f [batch]; for labels the centred logits [batch, class]; of an uncertain source
        [batch, draw, ...].
        """
        return checked(self.source, self.link, x, self.response.shaped, "RECaST")

    def training_predictions(self, x: Inputs) -> Tensor:
        """The `predictions`, refused if the effect cannot be learned from them."""
        f = self.predictions(x)
        for one in f.unbind(1) if self.source_count > 1 else [f]:
            self.response.check(one, "RECaST", linked=self.link is not None)
        return f

    def of_predictions(self) -> "RECaST":
        """The same model for predictions f in the place of x.

        The source is then called once, beforehand.
        """
        given = SourceDraws.given(self.source_count) if self.source_count > 1 else None
        return RECaST(given, response=self.response, effect=self.effect, priors=self.priors, name=self.name)

    def outputs(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """Location, scale(, sigma) of each example, [*draw, batch, out]."""
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
        lacking = [site for site in self.sites if site not in values]
        if lacking:
            raise ValueError(f"RECaST: no value of {lacking[0]!r}; there are {', '.join(values) or 'none'}")
        prefix = prefix_of(self.name)
        if self.source_count > 1:
            f = f.movedim(1, 0)[values[prefix + "source"].long()]
        return self.response.outputs([values[prefix + number].to(f).unsqueeze(-1) for number in self.priors], f)

    def checked_target(self, f: Tensor, y: Tensor) -> Tensor:
        """y in double precision.

        Raises:
            ValueError: targets that the likelihood cannot have produced.
        """
        start = {site: f.new_zeros(shape) for site, shape in self.sites.items()}
        with torch.no_grad():
            check_target(self.likelihood(self.outputs_at(start, f)), y)
        return y.detach().to(f)

    def log_joint(self, values: Mapping[str, Tensor], f: Tensor, y: Tensor) -> Tensor:
        """log p(values) + sum_i log p(y_i | f_i, values) in nats, [*draw]: without Pyro, for
        samplers.

        The draw of an uncertain source is summed over.

        Args:
            values: {site: [*draw]} of the numbers, double.
            f: predictions [batch, ...], as `predictions(x)` gives them.
            y: targets [batch].
        """
        prefix = prefix_of(self.name)
        prior = sum(moved(p, f).log_prob(values[prefix + number]) for number, p in self.priors.items())
        return prior + log_likelihoods_of_sources(self, values, f, y).logsumexp(-1) - math.log(self.source_count)

    def _sample(self, f: Tensor) -> Tensor:
        prefix, values = prefix_of(self.name), {}
        with SurroundingPlates() as plates:
            for number, prior in self.priors.items():
                values[prefix + number] = pyro.sample(prefix + number, moved(prior, f))
        check_outside(plates, "RECaST", "its numbers are")
        # Inside plates a number has the data plate's axis already, of size 1.
        depth = plates.depth
        values = {site: value.squeeze(-1) if depth and value.dim() else value for site, value in values.items()}
        if self.source_count > 1:
            uniform = dist.Categorical(f.new_ones(self.source_count))
            index = pyro.sample(prefix + "source", uniform, infer={"enumerate": "parallel"})
            # enumerated: [S, 1]
            values[prefix + "source"] = index.squeeze(-1) if index.dim() else index
        return self.outputs_at(values, f)


def log_likelihoods_of_sources(model: RECaST, values: Mapping[str, Tensor], f: Tensor, y: Tensor) -> Tensor:
    """sum_i log p(y_i | f_s, values) in nats for every draw of the source, [*draw, S].

    Args:
        model: RECaST.
        values: {site: [*draw]} of the numbers, double.
        f: predictions [batch, ...], as `model.predictions(x)` gives them.
        y: targets [batch].
    """
    each = {site: values[site].unsqueeze(-1) for site in model.number_sites}
    if model.source_count > 1:
        each[prefix_of(model.name) + "source"] = torch.arange(model.source_count, device=f.device)
    return model.likelihood(model.outputs_at(each, f)).log_prob(y.to(f)).sum(-1)
