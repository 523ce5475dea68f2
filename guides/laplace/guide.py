"""The Laplace approximation as a Pyro guide."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.curvature import JacobianRows
from bayesnn.functional import Inputs, check_evaluation_mode, parameters
from bayesnn.functional.roots import semidefinite_root, triangular
from bayesnn.guides.fisher.exact import EXACT, ExactFisher, check_fisher
from bayesnn.guides.fisher.protocol import OutputFisher, check_way
from bayesnn.guides.laplace import evidence
from bayesnn.guides.laplace.data_pass import DataPass
from bayesnn.guides.laplace.full import Full, FullPosterior
from bayesnn.guides.laplace.hessian import Hessian
from bayesnn.guides.laplace.prior import check_same_prior, normal_prior
from bayesnn.guides.laplace.structure import Posterior, Structure
from bayesnn.handlers import prefix_of
from bayesnn.models import BNN
from bayesnn.models.bnn import check_inputs
from bayesnn.priors import Prior

FITTED = ("prior_loc", "prior_precision", "log_likelihood", "examples", "observations", "factor", "fixed")


class Laplace(nn.Module):
    """q(w) = N(w*, (H + P)^-1): a normal distribution around the mode, with the curvature of the log joint density.

    H = sum_i J_i^T L_i J_i is the generalised Gauss-Newton matrix over the training data (L_i the Fisher information of
    the likelihood in the outputs), P the diagonal precision of the normal prior. With full structure and exact L_i, for
    a model that is linear in its random weights with a normal likelihood, and w* its mode, it is the exact posterior.

    The guide is a plain Pyro guide. Its `model` is the model under the prior that the posterior has: after
    `maximise_evidence` use that one.

    Args:
        model: a `BNN` with a normal prior of fixed scales, and a likelihood without latent sites.
        mode: {site: value} of the mode w*; by default the network's own weights, so that the predictions at the mean
            are the trained network's. `AutoDelta(model).median()` gives one.
        structure: in which form H is kept: `Full`, `Kronecker`, `Diagonal`, `functools.partial(LowRank, rank=50)`, or
            `Hessian` in the place of the Gauss-Newton matrix.
        fisher: how L_i is had: `ExactFisher()`, `MonteCarloFisher()`, `FisherProbes()`, `EmpiricalFisher()` of
            `bayesnn.guides.fisher`, or an object of your own with a method `roots`.

    Raises:
        ValueError: a prior that is not normal or has latent scales; a likelihood without a `fisher`; an empty loader;
            data that are not finite or do not fit; a precision that is not positive definite; use before `fit`; a state
            of another network, subset or prior; a layer or subset that the structure does not know.
        MemoryError: the covariance needs more memory than there is (its size is given, and what to do instead).

    References: MacKay (1992), A practical Bayesian framework for backpropagation networks; Ritter, Botev, Barber
    (2018); Daxberger, Kristiadi, Immer, Eschenhagen, Bauer, Hennig (2021), Laplace redux.

    >>> from bayesnn import likelihoods, priors, subset
    >>> net = nn.Linear(1, 1, bias=False)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> guide = Laplace(model).fit([(torch.ones(3, 1), torch.zeros(3, 1))])
    >>> guide.covariance                                        # 1 / (3 + 1)
    tensor([[0.2500]])
    """

    loc: Tensor
    prior_loc: Tensor
    prior_precision: Tensor
    log_likelihood: Tensor
    examples: Tensor
    observations: Tensor
    factor: Tensor
    fixed: Tensor

    def __init__(
        self,
        model: BNN,
        mode: Mapping[str, Tensor] | None = None,
        *,
        structure: Callable[[BNN, JacobianRows], Structure] = Full,
        fisher: OutputFisher = EXACT,
    ) -> None:
        super().__init__()
        check_way("Laplace", "fisher", fisher, OutputFisher)
        if isinstance(fisher, ExactFisher) and structure is not Hessian:
            check_fisher(model.likelihood)
        normal_prior(model)  # raises for priors that are not normal
        self._model = (model,)
        self._make, self._fisher = structure, fisher
        self.register_buffer("loc", _flat(model, model.values() if mode is None else mode))
        for name in FITTED:
            self.register_buffer(name, None)
        self.structure: Structure | None = None
        self._posterior: Posterior | None = None
        self._held: evidence.Evidence | None = None
        self._rows = self._derivatives()

    @property
    def model(self) -> BNN:
        """The model whose posterior this is: its prior is the one that the precision contains."""
        return self._model[0]

    @property
    def posterior(self) -> Posterior:
        """N(w*, (H + P)^-1) in the structure's form; found when it is first asked for."""
        if self._posterior is None:
            self._posterior = self._fitted().posterior(self.prior_precision.double(), self._scale())
        return self._posterior

    @property
    def covariance(self) -> Tensor:
        """(H + P)^-1, [param, param], in the order of the blocks."""
        return self.posterior.covariance()

    @property
    def scale_tril(self) -> Tensor:
        """The lower triangular root of the covariance, [param, param]; full structure only."""
        posterior = self.posterior
        if not isinstance(posterior, FullPosterior):
            raise TypeError(f"Laplace: {type(self.structure).__name__} has no scale_tril; use covariance")
        return posterior.scale_tril

    def mode(self) -> dict[str, Tensor]:
        """w*, {site: value}."""
        return self._values(self.loc)

    def fit(self, loader: Iterable[tuple[Inputs, Tensor]], *, progress: bool = False) -> "Laplace":
        """Sum the curvature over the training data and return this guide.

        Batches (x, y) of the training data, each example once. Where the model's `size` says that there are more, H is
        scaled by size / examples seen. One pass (`LowRank`: several).
        """
        return self._collect(self._make(self.model, self._rows), loader, progress=progress)

    def update(self, loader: Iterable[tuple[Inputs, Tensor]], *, progress: bool = False) -> "Laplace":
        """Add further data to those of the fit, at the same mode, and return this guide.

        Raises:
            ValueError: the observation noise was fitted since: the sums belong to the noise before.
        """
        structure = self._fitted()
        if self.factor != 1:
            raise ValueError("Laplace.update: the noise was fitted after the curvature was summed; fit again instead")
        # A copy, which is dropped where the data turn out to be bad; the network is not copied with it.
        kept = {id(held): held for held in (self.model, structure.rows)}
        return self._collect(copy.deepcopy(structure, kept), loader, progress=progress, more=True)

    def log_evidence(self, factor: float | Tensor = 1.0) -> Tensor:
        """log p(y) ~ log p(y | w*) + log p(w*) + k/2 log 2 pi - 1/2 log |H + P|, in nats.

        `factor` multiplies the prior's precision: a tensor of several gives the evidence of each, nearly for free.
        """
        factor = torch.as_tensor(factor, dtype=torch.double, device=self.loc.device)
        if not bool((factor > 0).all()):
            raise ValueError(f"Laplace: a prior precision is positive, and so are its factors, not {factor.tolist()}")
        return self._evidence().of_factor(factor)

    def maximise_evidence(self, *, per: evidence.Per = "network", noise: bool = False) -> "Laplace":
        """The guide under the prior, and noise, that maximise `log_evidence` at the present mode and curvature.

        Returns a new guide whose `model` has them; nothing is summed again.

        Args:
            per: one factor of the prior's precisions for the whole "network", for every "block", or for every "weight".
            noise: fit a factor of the noise scale of `likelihoods.normal` as well.

        Raises:
            ValueError: the evidence has no maximum: it grows as the prior becomes a point, or flat; a noise scale to
                fit where the likelihood has none; several precisions in one block for `Kronecker`.

        References: MacKay (1992); Immer, Bauer, Fortuin, Rätsch, Khan (2021), Scalable marginal likelihood estimation
        for model selection in deep learning.
        """
        best = evidence.maximum(self._evidence(), self.model, per=per, noise=noise)
        other = self._under(best.model)
        if noise:
            other.log_likelihood = best.log_likelihood / self._share()
            other.factor = self.factor / best.noise_variance
        return other

    def with_prior(self, prior: Prior) -> "Laplace":
        """The guide under another normal prior, at the same mode and with the same curvature: nothing is summed again.

        The returned guide's `model` has the prior. With `priors.rescaled` it scans prior scales for cross-validation.
        """
        return self._under(self.model.with_prior(prior))

    @torch.no_grad()
    def output_distribution(self, x: Inputs, *, diagonal: bool = False) -> dist.TorchDistribution:
        """N(f(x; w*), J (H + P)^-1 J^T) over the outputs, [batch] x [class]: the network linearised at the mode.

        Args:
            x: inputs.
            diagonal: compute the variances alone: an `Independent` normal in the place of a multivariate one.
        """
        check_evaluation_mode(self.model.net, "Laplace.output_distribution")
        check_inputs(x)
        found = list(self.posterior.output_variances(self._rows, x, diagonal=diagonal))
        loc = torch.cat([outputs.flatten(1) for outputs, _ in found])
        variances = torch.cat([variance for _, variance in found])
        if diagonal:
            return dist.Normal(loc, variances.sqrt(), validate_args=False).to_event(1)
        return dist.MultivariateNormal(loc, scale_tril=triangular(semidefinite_root(variances)), validate_args=False)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample all blocks; the arguments are the model's and are not used.

        Independent blocks are one site each; with full covariance an auxiliary site "_laplace" holds all blocks
        jointly, and each block follows from it.
        """
        posterior = self.posterior
        if (joint := posterior.joint(self.loc)) is None:
            loc = dict(zip(self.model.subset.names, self.mode().values(), strict=True))
            found = posterior.distributions(loc)
            return {site: pyro.sample(site, found[block]) for site, block in self._blocks()}
        flat = pyro.sample(prefix_of(self.model.name) + "_laplace", joint, infer={"is_auxiliary": True})
        return {
            site: pyro.sample(site, dist.Delta(value, event_dim=len(self.model.sites[site])))
            for site, value in self._values(flat).items()
        }

    def get_extra_state(self) -> dict[str, str]:
        """What a state dict says of the model it belongs to."""
        return {"fingerprint": self.model.subset.fingerprint(), "structure": type(self.structure).__name__}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Checked before anything is loaded: see `_load_from_state_dict`."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        fitted = state.get("prior_precision") is not None
        structure = self._make(self.model, self._rows) if fitted else None
        self._check_state(state, structure)
        self.structure = structure  # its own sums are loaded after this
        for name in FITTED:
            held = state.get(name)
            setattr(self, name, None if held is None else torch.empty_like(held, device=self.loc.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._moved()

    def _check_state(self, state: Mapping[str, Any], structure: Structure | None) -> None:
        extra = state.get("_extra_state", {})
        if extra.get("fingerprint") != self.model.subset.fingerprint():
            raise ValueError(
                "Laplace: this state belongs to another network or subset (names, shapes or indices differ)"
            )
        if structure is None:
            return
        if (held := extra.get("structure")) != type(structure).__name__:
            raise ValueError(f"Laplace: this state has the structure {held}; use Laplace(model, structure={held})")
        check_same_prior(normal_prior(self.model), (state["prior_loc"], state["prior_precision"]))
        ours = fixed_weights(self.model)
        if not torch.allclose(ours, state["fixed"].to(ours), rtol=1e-4):
            raise ValueError(
                "Laplace: this state was fitted around other fixed weights: the network was trained further, or is "
                "another of the same shape; load the network's own state first, or fit again"
            )

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._apply(*args, **kwargs)
        self._moved()
        return result

    def _moved(self) -> None:
        """The mode has other values, or is elsewhere: forget what was found at it."""
        self._posterior = self._held = None
        self._rows = self._derivatives()
        if self.structure is not None:
            self.structure.at(self._rows)

    def _derivatives(self) -> JacobianRows:
        net = self.model.net
        values = dict(zip(self.model.subset.names, self.mode().values(), strict=True))
        return JacobianRows(net, self.model.subset.put(parameters(net), values), self.model.subset.index)

    def _collect(
        self, structure: Structure, loader: Iterable[tuple[Inputs, Tensor]], *, progress: bool, more: bool = False
    ) -> "Laplace":
        check_evaluation_mode(self.model.net, "Laplace")
        before = int(self.examples) if more else 0
        sweep = DataPass(self.model, loader, self._fisher, self.loc.device, progress, before=before)
        prior = normal_prior(self.model)
        structure.collect(sweep)
        found = {"log_likelihood": sweep.log_likelihood, "examples": sweep.seen, "observations": sweep.observations}
        for name, value in found.items():
            value = torch.as_tensor(value, dtype=torch.double, device=self.loc.device)
            setattr(self, name, value + getattr(self, name) if more else value)
        self.prior_loc, self.prior_precision = prior
        self.factor = torch.ones((), dtype=torch.double, device=self.loc.device)
        self.fixed = fixed_weights(self.model)
        self.structure, self._posterior, self._held = structure, None, None
        return self

    def _under(self, model: BNN) -> "Laplace":
        """The guide of a model with another prior or noise, which shares the curvature."""
        structure = self._fitted()
        other = Laplace(model, self.mode(), structure=self._make, fisher=self._fisher)
        other.prior_loc, other.prior_precision = normal_prior(model)
        for name in ("log_likelihood", "examples", "observations", "factor", "fixed"):
            setattr(other, name, getattr(self, name))
        other.structure = structure
        return other

    def _evidence(self) -> evidence.Evidence:
        if self._held is None:
            self._held = self._new_evidence()
        return self._held

    def _new_evidence(self) -> evidence.Evidence:
        return evidence.Evidence(
            structure=self._fitted(),
            scale=self._scale(),
            log_likelihood=self.log_likelihood * self._share(),
            observations=float(self.observations) * self._share(),
            precision=self.prior_precision.double(),
            difference=(self.loc - self.prior_loc).double(),
        )

    def _share(self) -> float:
        """All training examples over those seen."""
        return 1.0 if self.model.size is None else self.model.size / float(self.examples)

    def _scale(self) -> float:
        """What the summed curvature is multiplied with."""
        return self._share() * float(self.factor)

    def _fitted(self) -> Structure:
        if self.structure is None:
            raise ValueError("Laplace: call fit(loader) first")
        return self.structure

    def _blocks(self) -> Iterable[tuple[str, str]]:
        return zip(self.model.sites, self.model.subset.names, strict=True)

    def _values(self, flat: Tensor) -> dict[str, Tensor]:
        """The blocks of a joint value [*lead, param]."""
        sites = self.model.sites
        parts = flat.split([shape.numel() for shape in sites.values()], dim=-1)
        return {
            site: part.reshape(part.shape[:-1] + shape)
            for (site, shape), part in zip(sites.items(), parts, strict=True)
        }


def _flat(model: BNN, mode: Mapping[str, Tensor]) -> Tensor:
    """The mode in one vector, in the order of the blocks."""
    for site, shape in model.sites.items():
        if site not in mode:
            raise ValueError(f"Laplace: the mode has no value for {site!r}")
        if mode[site].shape != shape:
            raise ValueError(
                f"Laplace: the mode of {site!r} has shape {tuple(mode[site].shape)}, the block has {tuple(shape)}"
            )
    return torch.cat([mode[site].detach().reshape(-1) for site in model.sites])


def fixed_weights(model: BNN) -> Tensor:
    """The sum and the sum of squares of all weights and buffers that are not random: what states know a network by."""
    held = parameters(model.net)
    nothing = {name: torch.zeros(model.subset.event_shape(name)).to(held[name]) for name in model.subset.names}
    held.update(model.subset.put(held, nothing))
    tensors = [tensor.detach().double() for tensor in (*held.values(), *model.net.buffers())]
    return torch.stack([torch.stack([tensor.sum(), tensor.square().sum()]) for tensor in tensors]).sum(0)
