"""Normal posteriors whose predictions are propagated moments: multiplicative activation noise, and its relatives."""

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn.functional import Inputs, Moments, check_evaluation_mode, parameters, propagate_moments
from bayesnn.guides.latent_sites import latent_sites
from bayesnn.guides.noise_families import Family, PerInput, layout
from bayesnn.guides.noise_kl import noise_kl
from bayesnn.guides.recognised import Recognised
from bayesnn.handlers import announced, prefix_of, prefixed
from bayesnn.models import BNN
from bayesnn.models.bnn import check_inputs


class MultiplicativeNoise(Recognised):
    """q(w) = prod_ij N(w_ij; W_ij, a_j W_ij^2): noise whose size follows the weight's, one a_j for each input.

    The posterior of MNVI. It has the moments of a network whose activations are multiplied by noise of mean 1 and
    variance a_j, and hardly more parameters than the network: 4,355 for the matrices of a ResNet-18 of ten classes.
    Train it with `MomentPropagationELBO`, which propagates means and variances through the network and draws no
    weights; any ELBO of Pyro's works too. Draws from the guide are weights, for `Predictive`, ArviZ and diagnostics.

    `family=PerWeight()` makes it mean-field, `family=PerInputVariance()` shares an absolute variance for each input.
    Its parameters are `loc`, all means in order, and `raw`, whose softplus gives the family's variances.

    Args:
        model: a `BNN` with normal priors and without latent scales.
        family: how variances are shared.

    Raises:
        TypeError: a model that is no `BNN`.
        ValueError: a latent scale in the prior.

    Reference: Schmitt, Roth (2021), Sampling-free variational inference for neural networks with multiplicative
    activation noise.

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

    def __init__(self, model: Any, family: Family | None = None) -> None:
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
        self._model = (model,)
        self.family = PerInput() if family is None else family
        self._layouts = {name: layout(model.net, name, model.subset.index[name]) for name in model.subset.names}
        values = model.values().values()
        self._shapes = [value.shape for value in values]
        loc = torch.cat([value.reshape(-1) for value in values])
        self._dtype = loc.dtype  # of draws; squares of halves overflow
        self.loc = nn.Parameter(loc.float() if loc.dtype in (torch.float16, torch.bfloat16) else loc)
        starts = [self.family.start(of) for of in self._layouts.values()]
        self._counts = [len(start) for start in starts]
        numbers = torch.cat(starts).double()
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
        """{parameter: its means and variances}, whole parameters; entries that are not random have variance 0."""
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
        """N(mean, variance) over the outputs, [batch] x [class]: one pass of moments, no draws and no covariances.

        Args:
            x: inputs.
            chunk: examples in one pass.
        """
        check_evaluation_mode(self.model.net, "MultiplicativeNoise.output_distribution")
        check_inputs(x)
        outputs = propagate_moments(self.model.net, self.moments(), x, chunk=chunk)
        normal = dist.Normal(outputs.loc, outputs.variance.sqrt(), validate_args=False)
        return normal.to_event(outputs.loc.dim() - 1)

    def _blocks(self) -> dict[str, tuple[Tensor, Tensor]]:
        """{parameter: (means of its random entries, the family's numbers)}."""
        owner = f"MultiplicativeNoise[{next(iter(self.model.sites))}]"  # site names differ where two guides meet
        locs = announced(f"{owner}.loc", self.loc).split([shape.numel() for shape in self._shapes])
        numbers = F.softplus(announced(f"{owner}.raw", self.raw)).split(self._counts)
        blocks = zip(self._layouts, locs, numbers, self._shapes, strict=True)
        return {name: (loc.reshape(shape), number) for name, loc, number, shape in blocks}

    def _fingerprint(self) -> str:
        sites = ", ".join(f"{site} {list(shape)}" for site, shape in self.model.sites.items())
        return f"{sites}; subset {self.model.subset.fingerprint()}; {self.family}"
