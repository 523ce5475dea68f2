"""Normal posteriors whose predictions are propagated moments: multiplicative
activation noise, and its relatives.
"""

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn.curvature import JacobianRows, linearised_variance
from bayesnn.functional import Inputs, call, check_evaluation_mode, chunks, parameters
from bayesnn.guides.common.checked_state import CheckedState
from bayesnn.guides.common.latent_sites import latent_sites
from bayesnn.guides.expectations.output_covariance import normal_of
from bayesnn.guides.multiplicative_noise.families import Family, PerInput, layout
from bayesnn.guides.multiplicative_noise.kl import noise_kl
from bayesnn.handlers import param_site, prefix_of, prefixed
from bayesnn.models import BNN
from bayesnn.models.inputs import check_inputs
from bayesnn.moments import Moments, RepeatedUse, propagate_moments
from bayesnn.sites import from_vector, to_vector


class MultiplicativeNoise(CheckedState):
    """q(w) = prod_ij N(w_ij; W_ij, a_j W_ij^2): noise whose size follows the weight's, one a_j for
    each input.

    The posterior of MNVI. It has the moments of a network whose activations are multiplied by
    noise of mean 1 and variance a_j, and hardly more parameters than the network: 4,355 for the
    matrices of a ResNet-18 of ten classes. Train it with `MomentPropagationELBO`, which propagates
    means and variances through the network and draws no weights; any ELBO of Pyro's works too.
    Draws from the guide are weights, for `Predictive`, ArviZ and diagnostics.

    `family=PerWeight()` makes it mean-field, `family=PerInputVariance()` shares an absolute
    variance for each input. Its parameters are `loc`, all means in order, and `raw`, whose
    softplus gives the family's variances.

    Args:
        model: a `BNN` with normal priors and without latent scales.
        family: how variances are shared.
        covariance: let `MomentPropagationELBO` and `output_distribution` keep covariances between
            the units of an example from the second linear layer on: standard deviations then come
            out nearly as large as those of draws, at a cost of n^3 for a layer of n units and
            every example. The posterior is the same, so that the attribute may be set at any time.

    Raises:
        TypeError: a model that is no `BNN`.
        ValueError: a latent scale in the prior.

    References: Schmitt, Roth (2021), Sampling-free variational inference for neural networks with
    multiplicative activation noise; with covariances Wu, Nowozin, Meeds, Turner, Hernández-Lobato,
    Gaunt (2019), Deterministic variational inference for robust Bayesian neural networks.

    >>> from bayesnn import likelihoods, priors, subset
    >>> from bayesnn.guides import MomentPropagationELBO
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(0.1), size=20)
    >>> guide = MultiplicativeNoise(model)
    >>> loss = MomentPropagationELBO()(model, guide)
    >>> bool(loss(torch.zeros(5, 3), torch.zeros(5, 1)) > 0)
    True
    >>> guide.output_distribution(torch.zeros(5, 3)).variance.shape
    torch.Size([5, 1])
    """

    def __init__(self, model: Any, family: Family | None = None, *, covariance: bool = False) -> None:
        super().__init__()
        if not isinstance(model, BNN):
            raise TypeError(f"MultiplicativeNoise: moments go through a network; the model must be a BNN, not a "
                            f"{type(model).__name__}")  # fmt: skip
        sites, _ = latent_sites(model, ())
        latent = [name for name in sites if name not in model.sites]
        if latent:
            raise ValueError(
                f"MultiplicativeNoise: the prior's scale {latent[0]!r} is latent, and weights are then not normal; use "
                "priors.normal(learned(...)), or MeanField"
            )
        self._model, self.covariance = (model,), covariance
        self.family = PerInput() if family is None else family
        self._layouts = {name: layout(model.net, name, model.subset.index[name]) for name in model.subset.names}
        values = dict(zip(self._layouts, model.values().values(), strict=True))
        self._shapes = {name: value.shape for name, value in values.items()}
        loc = to_vector(values, values)
        self._dtype = loc.dtype  # of draws; squares of halves overflow
        self.loc = nn.Parameter(loc.float() if loc.dtype in (torch.float16, torch.bfloat16) else loc)
        starts = {name: self.family.start(of) for name, of in self._layouts.items()}
        self._counts = {name: start.shape for name, start in starts.items()}
        numbers = to_vector(starts, starts).double()
        if not bool((numbers > 0).all()):
            raise ValueError(f"MultiplicativeNoise: variances start at positive numbers, not as {self.family}")
        self.raw = nn.Parameter(numbers.expm1().log().to(self.loc))  # softplus(raw) = numbers

    @property
    def model(self) -> BNN:
        """The model that the guide approximates the posterior of."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; the arguments are the model's and are not used."""
        prefix, values = prefix_of(self.model.name), {}
        for name, (loc, numbers) in self._blocks().items():
            scale = self.family.entries(self._layouts[name], loc, numbers).sqrt()
            normal = dist.Normal(loc.to(self._dtype), scale.to(self._dtype), validate_args=False)
            values[prefix + name] = pyro.sample(prefix + name, normal.to_event(loc.dim()))
        return values

    def moments(self) -> dict[str, Moments]:
        """{parameter: its means and variances}, whole parameters; entries that
        are not random have variance 0.
        """
        held = parameters(self.model.net)
        found = {}
        for name, (loc, numbers) in self._blocks().items():
            of = self._layouts[name]
            if of.index is None:
                found[name] = self.family.moments(of, loc, numbers)
                continue
            where, whole = of.index.to(loc.device), held[name].reshape(-1).to(loc.dtype)
            variance = torch.zeros_like(whole).scatter(0, where, self.family.entries(of, loc, numbers))
            found[name] = Moments(whole.scatter(0, where, loc).reshape(of.shape), variance.reshape(of.shape))
        return found

    def kl(self, model: BNN | None = None, moments: dict[str, Moments] | None = None) -> Tensor:
        """KL(q(w) || p(w)) in nats, in closed form, constants included.

        Args:
            model: whose prior; the guide's own by default.
            moments: those of `moments()`, where they are known already.
        """
        model = self.model if model is None else model
        found = self.moments() if moments is None else moments
        held, terms = parameters(model.net), []
        for name, weight in found.items():
            of = self._layouts[name]
            value = of.entries(held[name]).to(weight.loc.dtype)
            with prefixed(model.name):
                prior = model.prior(name, value)
            if of.index is not None:
                weight = Moments(of.entries(weight.loc), of.entries(weight.variance))
            terms.append(noise_kl(name, weight, prior))
        return torch.stack(terms).sum()

    @torch.no_grad()
    def output_distribution(self, x: Inputs, *, chunk: int = 100) -> dist.TorchDistribution:
        """N(mean, V) over the outputs, [batch] x [class]: one pass of moments, no draws.

        With `covariance` it is a `MultivariateNormal`; without, V is diagonal.

        Args:
            x: inputs.
            chunk: examples in one pass.

        Raises:
            NotImplementedError: an operation without a moment rule, or a random entry of a
                parameter that is used twice in one pass, as with tied weights.
        """
        check_evaluation_mode(self.model.net, "MultiplicativeNoise.output_distribution")
        check_inputs(x)
        outputs = propagate_moments(self.model.net, self.moments(), x, chunk=chunk, covariance=self.covariance)
        return normal_of(outputs, covariance=self.covariance)

    @torch.no_grad()
    def linearised_distribution(self, x: Inputs, *, chunk: int = 50) -> dist.TorchDistribution:
        """N(mean, diag(J diag(S) J^T)), [batch] x [class]: propagated means, variances to first
        order in the weights.

        S are the variances of the weights and J the derivatives at their means, so that all that
        units share is in it. In deep trained networks, where `output_distribution` has standard
        deviations that are several times too small and do not rank inputs, these agree with those
        of draws while S is small. It takes one pass back through the network for every output:
        about 50 forward passes for ten classes.

        Derivatives know which weights are used twice, moments do not: of a network with tied
        weights the means are its outputs at the weights' means.

        Args:
            x: inputs.
            chunk: examples in one pass.

        Raises:
            TypeError: a network of half precision.
        """
        net = self.model.net
        check_evaluation_mode(net, "MultiplicativeNoise.linearised_distribution")
        check_inputs(x)
        if self._dtype != self.loc.dtype:
            raise TypeError(
                f"MultiplicativeNoise.linearised_distribution: derivatives in {self._dtype} have too few digits; make "
                "the model of net.float()"
            )
        weights, parts = self.moments(), list(chunks(x, chunk))
        at = {name: weight.loc for name, weight in weights.items()}
        rows = JacobianRows(net, at, dict.fromkeys(weights))
        spreads = {name: weight.variance for name, weight in weights.items()}
        try:
            mean = torch.cat([propagate_moments(net, weights, part).loc for part in parts])
        except RepeatedUse:
            mean = torch.cat([call(net, at, part) for part in parts])
        variance = torch.cat([linearised_variance(rows, part, spreads) for part in parts]).reshape(mean.shape)
        return dist.Normal(mean, variance.sqrt(), validate_args=False).to_event(mean.dim() - 1)

    def _blocks(self) -> dict[str, tuple[Tensor, Tensor]]:
        """{parameter: (means of its random entries, the family's numbers)}."""
        # site names differ where two guides meet
        owner = f"MultiplicativeNoise[{next(iter(self.model.sites))}]"
        locs = from_vector(param_site(f"{owner}.loc", self.loc), self._shapes)
        numbers = from_vector(F.softplus(param_site(f"{owner}.raw", self.raw)), self._counts)
        return {name: (locs[name], numbers[name]) for name in self._layouts}

    def _fingerprint(self) -> str:
        sites = ", ".join(f"{site} {list(shape)}" for site, shape in self.model.sites.items())
        return f"{sites}; subset {self.model.subset.fingerprint()}; {self.family}"
