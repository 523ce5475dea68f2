"""The Laplace approximation as a Pyro guide."""

import copy
from collections.abc import Iterable, Mapping
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
from bayesnn.guides.laplace import evidence, state
from bayesnn.guides.laplace.data_pass import DataPass
from bayesnn.guides.laplace.fitted import Fitted, collected
from bayesnn.guides.laplace.flat import by_site, flat_mode
from bayesnn.guides.laplace.full import Full, FullPosterior
from bayesnn.guides.laplace.prior import normal_prior
from bayesnn.guides.laplace.structure import MakeStructure, Posterior, Structure, uses_fisher
from bayesnn.handlers import prefix_of
from bayesnn.models import BNN
from bayesnn.models.inputs import check_inputs
from bayesnn.priors import Prior


class Laplace(nn.Module):
    """q(w) = N(w*, (H + P)^-1): a normal distribution around the mode, with the curvature of the
    log joint density.

    H = sum_i J_i^T L_i J_i is the generalised Gauss-Newton matrix over the training data (L_i the
    Fisher information of the likelihood in the outputs), P the diagonal precision of the normal
    prior. With full structure and exact L_i, for a model that is linear in its random weights with
    a normal likelihood, and w* its mode, it is the exact posterior.

    The guide is a plain Pyro guide. Its `model` is the model under the prior that the posterior
    has: after `maximise_evidence` use that one. So it is after loading:
    `guide.load_state_dict(torch.load(path))` brings the fitted prior's scales and the noise of
    `likelihoods.normal` along, and `guide.model` has them.

    Args:
        model: a `BNN` with a normal prior of fixed scales, and a likelihood without latent sites.
        mode: {site: value} of the mode w*; by default the network's own weights, so that the
            predictions at the mean are the trained network's. `AutoDelta(model).median()` gives
            one.
        structure: in which form H is kept: `Full`, `Kronecker`, `Diagonal`,
            `functools.partial(LowRank, rank=50)`, or `Hessian` in the place of the Gauss-Newton
            matrix.
        fisher: how L_i is had: `ExactFisher()`, `MonteCarloFisher()`, `FisherProbes()`,
            `EmpiricalFisher()` of `bayesnn.guides.fisher`, or an object of your own with a method
            `roots`.

    Raises:
        ValueError: a prior that is not normal or has latent scales; a likelihood without a
            `fisher`; an empty loader; data that are not finite or do not fit; a precision that is
            not positive definite; use before `fit`; a state of another network, subset, structure
            or likelihood, or of a prior with other means; a layer or subset that the structure
            does not know.
        TypeError: a structure of one's own that leaves examples out.
        MemoryError: the covariance needs more memory than there is (its size is given, and what to
            do instead).

    References: MacKay (1992), A practical Bayesian framework for backpropagation networks; Ritter,
    Botev, Barber (2018); Daxberger, Kristiadi, Immer, Eschenhagen, Bauer, Hennig (2021), Laplace
    redux.

    >>> from bayesnn import likelihoods, priors, subset
    >>> net = nn.Linear(1, 1, bias=False)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> guide = Laplace(model).fit([(torch.ones(3, 1), torch.zeros(3, 1))])
    >>> guide.covariance                                        # 1 / (3 + 1)
    tensor([[0.2500]])
    """

    loc: Tensor

    def __init__(
        self,
        model: BNN,
        mode: Mapping[str, Tensor] | None = None,
        *,
        structure: MakeStructure = Full,
        fisher: OutputFisher = EXACT,
    ) -> None:
        super().__init__()
        check_way("Laplace", "fisher", fisher, OutputFisher)
        if isinstance(fisher, ExactFisher) and uses_fisher(structure):
            check_fisher(model.likelihood)
        normal_prior(model)  # raises for priors that are not normal
        self._model = (model,)
        self._make, self._fisher = structure, fisher
        self.register_buffer("loc", flat_mode(model, model.values() if mode is None else mode))
        self._fitted: Fitted | None = None
        self._posterior: Posterior | None = None
        self._evidence: evidence.Evidence | None = None
        self._rows = self._derivatives()

    @property
    def model(self) -> BNN:
        """The model whose posterior this is: its prior is the one that the precision contains."""
        return self._model[0]

    @property
    def fitted(self) -> Fitted:
        """The result of the fit: `curvature` sums, the prior's precisions, log likelihood."""
        if self._fitted is None:
            raise ValueError("Laplace: call fit(loader) first")
        return self._fitted

    @property
    def posterior(self) -> Posterior:
        """N(w*, (H + P)^-1) in the structure's form, made when it is first asked for."""
        if self._posterior is None:
            fitted = self.fitted
            self._posterior = fitted.curvature.posterior(fitted.prior_precision.double(), fitted.scale(self.model))
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
            raise TypeError(f"Laplace: {type(self.fitted.curvature).__name__} has no scale_tril; use covariance")
        return posterior.scale_tril

    def mode(self) -> dict[str, Tensor]:
        """w*, {site: value}."""
        return by_site(self.model, self.loc)

    def fit(self, loader: Iterable[tuple[Inputs, Tensor]], *, progress: bool = True) -> "Laplace":
        """Sum the curvature over the training data and return this guide.

        Batches (x, y) of the training data, each example once. Where the model's `size` says that
        there are more, H is scaled by size / examples seen. One pass (`LowRank`: several).
        """
        structure = self._make(self.model, self._rows)
        if isinstance(self._fisher, ExactFisher) and structure.uses_fisher:
            check_fisher(self.model.likelihood)
        return self._collect(structure, loader, progress=progress)

    def update(self, loader: Iterable[tuple[Inputs, Tensor]], *, progress: bool = True) -> "Laplace":
        """Add further data to those of the fit, at the same mode, and return this guide.

        Raises:
            ValueError: the observation noise was fitted since: the sums belong to the noise
                before.
        """
        fitted = self.fitted
        if fitted.factor != 1:
            raise ValueError("Laplace.update: the noise was fitted after the curvature was summed; fit again instead")
        # A copy, which is dropped where the data turn out to be bad; the network is not copied
        # with it.
        kept = {id(held): held for held in (self.model, fitted.curvature.rows)}
        return self._collect(copy.deepcopy(fitted.curvature, kept), loader, progress=progress, before=fitted)

    def log_evidence(self, factor: float | Tensor = 1.0) -> Tensor:
        """log p(y) ~ log p(y | w*) + log p(w*) + k/2 log 2 pi - 1/2 log |H + P|, in nats.

        `factor` multiplies the prior's precision: a tensor of several gives the evidence of each,
        nearly for free.
        """
        factor = torch.as_tensor(factor, dtype=torch.double, device=self.loc.device)
        if not bool((factor > 0).all()):
            raise ValueError(f"Laplace: a prior precision is positive, and so are its factors, not {factor.tolist()}")
        return self._held_evidence().of_factor(factor)

    def maximise_evidence(self, *, per: evidence.Per = "network", fit_noise: bool = False) -> "Laplace":
        """The guide under the prior, and fit_noise, that maximise `log_evidence` at the present
        mode and curvature.

        Returns a new guide whose `model` has them; nothing is summed again.

        Args:
            per: one factor of the prior's precisions for the whole "network", for every "block",
                or for every "weight".
            fit_noise: fit a factor of the noise scale of `likelihoods.normal` as well.

        Raises:
            ValueError: the evidence has no maximum: it grows as the prior becomes a point, or
                flat; a noise scale to fit where the likelihood has none; several precisions in one
                block for `Kronecker`.

        References: MacKay (1992); Immer, Bauer, Fortuin, Rätsch, Khan (2021), Scalable marginal
        likelihood estimation for model selection in deep learning.
        """
        best = evidence.maximum(self._held_evidence(), self.model, per=per, fit_noise=fit_noise)
        return self._under(best.model, self.fitted.under_maximum(best, self.model, fit_noise=fit_noise))

    def with_prior(self, prior: Prior) -> "Laplace":
        """The guide under another normal prior, at the same mode and with the same curvature:
        nothing is summed again.

        The returned guide's `model` has the prior. With `priors.rescaled` it scans prior scales
        for cross-validation.
        """
        model = self.model.with_prior(prior)
        return self._under(model, self.fitted.under_prior(model))

    @torch.no_grad()
    def output_distribution(self, x: Inputs, *, diagonal: bool = False) -> dist.TorchDistribution:
        """N(f(x; w*), J (H + P)^-1 J^T) over the outputs, [batch] x [class]: the network
        linearised at the mode.

        Args:
            x: inputs.
            diagonal: compute the variances alone: an `Independent` normal in the place of a
                multivariate one.
        """
        check_evaluation_mode(self.model.net, "Laplace.output_distribution")
        check_inputs(x)
        parts = list(self.posterior.output_variances(self._rows, x, diagonal=diagonal))
        loc = torch.cat([outputs.flatten(1) for outputs, _ in parts])
        variances = torch.cat([variance for _, variance in parts])
        if diagonal:
            return dist.Normal(loc, variances.sqrt(), validate_args=False).to_event(1)
        return dist.MultivariateNormal(loc, scale_tril=triangular(semidefinite_root(variances)), validate_args=False)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample all blocks; the arguments are the model's and are not used.

        Independent blocks are one site each; with full covariance an auxiliary site "_laplace"
        holds all blocks jointly, and each block follows from it.
        """
        posterior = self.posterior
        if (joint := posterior.joint(self.loc)) is None:
            blocks = dict(zip(self.model.sites, self.model.subset.names, strict=True))
            loc = {blocks[site]: value for site, value in self.mode().items()}
            each = posterior.distributions(loc)
            return {site: pyro.sample(site, each[block]) for site, block in blocks.items()}
        flat = pyro.sample(prefix_of(self.model.name) + "_laplace", joint, infer={"is_auxiliary": True})
        return {
            site: pyro.sample(site, dist.Delta(value, event_dim=len(self.model.sites[site])))
            for site, value in by_site(self.model, flat).items()
        }

    def get_extra_state(self) -> dict[str, Any]:
        """The facts about the model and the fit that a state dict carries."""
        return state.facts(self.model, self._fitted)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Do nothing: `_load_from_state_dict` has checked the facts before anything is loaded."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        held = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        model, fitted = state.restored(held, "_fitted.", self.model, self._rows, self._make)
        # the structure's own sums are loaded after this
        self._model, self._fitted = (model,), fitted
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._moved()

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._apply(*args, **kwargs)
        self._moved()
        return result

    def _moved(self) -> None:
        """The mode has other values, or is elsewhere: forget what was derived from it."""
        self._posterior = self._evidence = None
        self._rows = self._derivatives()
        if self._fitted is not None:
            self._fitted.curvature.at(self._rows)

    def _derivatives(self) -> JacobianRows:
        net = self.model.net
        values = dict(zip(self.model.subset.names, self.mode().values(), strict=True))
        return JacobianRows(net, self.model.subset.put(parameters(net), values), self.model.subset.index)

    def _collect(
        self,
        structure: Structure,
        loader: Iterable[tuple[Inputs, Tensor]],
        *,
        progress: bool,
        before: Fitted | None = None,
    ) -> "Laplace":
        check_evaluation_mode(self.model.net, "Laplace")
        seen = 0 if before is None else int(before.examples)
        data = DataPass(self.model, loader, self._fisher, self.loc.device, progress, before=seen)
        self._fitted = collected(structure, data, before)
        self._posterior = self._evidence = None
        return self

    def _under(self, model: BNN, fitted: Fitted) -> "Laplace":
        """The guide of a model with another prior or noise, which shares the curvature."""
        other = Laplace(model, self.mode(), structure=self._make, fisher=self._fisher)
        other._fitted = fitted
        return other

    def _held_evidence(self) -> evidence.Evidence:
        if self._evidence is None:
            self._evidence = self.fitted.evidence(self.model, self.loc)
        return self._evidence
