"""The Laplace approximation with full covariance over a subset of the weights."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from tqdm.auto import tqdm

from bayesnn.functional import Inputs, check_evaluation_mode, memory, to_device
from bayesnn.functional.jacobian import jacobian_chunks
from bayesnn.guides.laplace_curvature import Curvature, curvature_of
from bayesnn.guides.laplace_prior import check_same_prior, normal_prior
from bayesnn.guides.output_normal import output_normal
from bayesnn.handlers import prefix_of
from bayesnn.models import BNN
from bayesnn.models.bnn import check_inputs
from bayesnn.priors import rescaled

FITTED = ("prior_loc", "prior_precision", "log_likelihood", "eigenvalues", "eigenvectors", "scale_tril")


class Laplace(nn.Module):
    """q(w) = N(w*, (H + P)^-1): a normal distribution around the mode, with the curvature of the log joint density.

    H = sum_i J_i^T L_i J_i is the generalised Gauss-Newton matrix over the training data (exact; L_i the Fisher
    information of the likelihood in the outputs), P the diagonal precision of the normal prior. For a model that is
    linear in its random weights with a normal likelihood, and w* its mode, it is the exact posterior.

    The guide is a plain Pyro guide: an auxiliary site "_laplace" holds all blocks jointly, and each block follows from
    it. Its `model` is the model under the prior that the posterior has: after `maximise_evidence` use that one.

    Args:
        model: a `BNN` with a normal prior of fixed scales, and a likelihood that has a `fisher` and no latent sites.
        mode: {site: value} of the mode w*; by default the network's own weights, so that the predictions at the mean
            are the trained network's. `AutoDelta(model).median()` gives one.

    Raises:
        ValueError: a prior that is not normal or has latent scales; a likelihood without a `fisher`; an empty loader;
            data that are not finite or do not fit; a precision that is not positive definite; use before `fit`; a state
            of another network, subset or prior.
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
    log_likelihood: Tensor

    def __init__(self, model: BNN, mode: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        if getattr(model.likelihood, "fisher", None) is None:
            raise ValueError(
                "Laplace: the likelihood has no Fisher information of its outputs; give it a method "
                "fisher(outputs) -> [batch, class, class]"
            )
        normal_prior(model)  # raises for priors that are not normal
        self._model = (model,)
        self.register_buffer("loc", _flat(model, model.values() if mode is None else mode))
        for name in FITTED:
            self.register_buffer(name, None)

    @property
    def model(self) -> BNN:
        """The model whose posterior this is: its prior is the one that the precision contains."""
        return self._model[0]

    @property
    def covariance(self) -> Tensor:
        """(H + P)^-1, [param, param], in the order of the blocks."""
        root = self._fitted("scale_tril")
        return root @ root.mT

    def fit(self, loader: Iterable[tuple[Inputs, Tensor]], *, progress: bool = False) -> "Laplace":
        """Sum the curvature over the training data, one pass, and return this guide.

        Batches (x, y) of the training data, each example once. Where the model's `size` says that there are more, H is
        scaled by size / examples seen.
        """
        model = self.model
        check_evaluation_mode(model.net, "Laplace")
        k = len(self.loc)
        memory.require(
            5 * 8 * k * k,  # H, its eigenvectors, their work space and the covariance's root, in double precision
            self.loc.device,
            f"Laplace: the full covariance of {k:,} weights",
            "choose a smaller subset: last_layer(net), or largest_variance(net, loader, likelihood, k=2_000)",
        )
        curvature = curvature_of(model, self._values(self.loc))
        seen = 0
        for number, (x, y) in enumerate(tqdm(loader, desc="Laplace", unit="batch", disable=not progress)):
            try:
                check_inputs(x)
                # Targets that are no tensor are refused where outputs meet them.
                target = y.to(self.loc.device) if isinstance(y, Tensor) else y
                seen += curvature.add(to_device(x, self.loc.device), target)
            except (TypeError, ValueError) as error:
                error.add_note(f"Laplace.fit: in batch {number} of the loader, counted from 0")
                raise
            if model.size is not None and seen > model.size:
                raise ValueError(
                    f"Laplace: the model's size is {model.size}, but the loader has more examples: {seen} so far"
                )
        if not seen:
            raise ValueError("Laplace: the loader is empty")
        self._decompose(curvature, 1.0 if model.size is None else model.size / seen)
        return self

    def log_evidence(self, factor: float | Tensor = 1.0) -> Tensor:
        """log p(y) ~ log p(y | w*) + log p(w*) + k/2 log 2 pi - 1/2 log |H + P|, in nats.

        `factor` multiplies the prior's precision: a tensor of several gives the evidence of each, nearly for free.
        """
        values = self._fitted("eigenvalues").double()
        factor = torch.as_tensor(factor, dtype=torch.double, device=values.device)
        if not bool((factor > 0).all()):
            raise ValueError(f"Laplace: a prior precision is positive, and so are its factors, not {factor.tolist()}")
        ratio = (values / factor.unsqueeze(-1)).log1p().sum(-1)
        return self._fitted("log_likelihood").double() - 0.5 * (factor * self._prior_quadratic() + ratio)

    def maximise_evidence(self) -> "Laplace":
        """The guide under the prior precision, a multiple of the present one, that maximises `log_evidence`.

        Returns a new guide whose `model` has that prior (`priors.rescaled`); the curvature is not computed again.

        Raises:
            ValueError: the evidence has no maximum: it grows as the prior becomes a point, or flat.
        """
        values, quadratic = self._fitted("eigenvalues").double(), self._prior_quadratic()

        def grows(log_factor: float) -> bool:
            """Whether the evidence grows in log(factor): it does up to its maximum, which is the only one."""
            factor = math.exp(log_factor)
            return bool((values / (values + factor)).sum() > factor * quadratic)

        low, high = -46.0, 46.0
        if grows(high):
            raise ValueError(
                "Laplace: the evidence grows without end in the prior's precision, since the weights lie at the "
                "prior's mean; keep a fixed prior scale"
            )
        if not grows(low):
            raise ValueError(
                "Laplace: the evidence falls in the prior's precision from 0 on, since the data say nothing of the "
                "weights; keep a fixed prior scale"
            )
        while high - low > 1e-13:
            middle = (low + high) / 2
            low, high = (middle, high) if grows(middle) else (low, middle)
        factor = math.exp(low)
        other = Laplace(self.model.with_prior(rescaled(self.model.prior, factor**-0.5)), self._values(self.loc))
        other.prior_loc, other.prior_precision = normal_prior(other.model)
        other.log_likelihood = self.log_likelihood
        other.eigenvalues = values.to(self.loc.dtype) / factor
        other.eigenvectors = self._fitted("eigenvectors")
        other._set_root()
        return other

    @torch.no_grad()
    def output_distribution(self, x: Inputs) -> dist.MultivariateNormal:
        """N(f(x; w*), J (H + P)^-1 J^T) over the outputs, [batch] x [class]: the network linearised at the mode."""
        check_evaluation_mode(self.model.net, "Laplace.output_distribution")
        check_inputs(x)
        root = self._fitted("scale_tril")
        chunks = jacobian_chunks(self.model.outputs, self._values(self.loc), x, numbers=self.model.touched)
        return output_normal((outputs, jac @ root) for _, outputs, jac in chunks)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample all blocks; the arguments are the model's and are not used."""
        joint = dist.MultivariateNormal(self.loc, scale_tril=self._fitted("scale_tril"), validate_args=False)
        flat = pyro.sample(prefix_of(self.model.name) + "_laplace", joint, infer={"is_auxiliary": True})
        return {
            site: pyro.sample(site, dist.Delta(value, event_dim=len(self.model.sites[site])))
            for site, value in self._values(flat).items()
        }

    def get_extra_state(self) -> dict[str, str]:
        """What a state dict says of the model it belongs to."""
        return {"fingerprint": self.model.subset.fingerprint()}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Checked before anything is loaded: see `_load_from_state_dict`."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        held = state_dict.get(prefix + "_extra_state", {}).get("fingerprint")
        if held != self.model.subset.fingerprint():
            raise ValueError(
                "Laplace: this state belongs to another network or subset (names, shapes or indices differ)"
            )
        fitted = {name: state_dict[prefix + name] for name in FITTED if prefix + name in state_dict}
        if "prior_loc" in fitted and "prior_precision" in fitted:
            check_same_prior(normal_prior(self.model), (fitted["prior_loc"], fitted["prior_precision"]))
        for name in FITTED:
            precise = name == "log_likelihood"
            like = self.loc.new_empty(0, dtype=torch.double if precise else None)
            setattr(self, name, like.new_empty(fitted[name].shape) if name in fitted else None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _values(self, flat: Tensor) -> dict[str, Tensor]:
        """The blocks of a joint value [*lead, param]."""
        sites = self.model.sites
        parts = flat.split([shape.numel() for shape in sites.values()], dim=-1)
        return {
            site: part.reshape(part.shape[:-1] + shape)
            for (site, shape), part in zip(sites.items(), parts, strict=True)
        }

    def _fitted(self, name: str) -> Tensor:
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError("Laplace: call fit(loader) first")
        return value

    def _prior_quadratic(self) -> Tensor:
        """(w* - m)^T P (w* - m)."""
        difference = (self.loc - self._fitted("prior_loc")).double()
        return (difference**2 * self._fitted("prior_precision").double()).sum()

    @torch.no_grad()
    def _decompose(self, curvature: Curvature, scale: float) -> None:
        """P^-1/2 H P^-1/2 = Q diag(eigenvalues) Q^T: the posterior under any multiple of the prior precision."""
        prior = normal_prior(self.model)
        root = prior[1].double().sqrt()
        matrix = curvature.matrix.mul_(scale).div_(root).div_(root.unsqueeze(-1))  # in place: it may be most of memory
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("Laplace: the curvature is not finite; are the likelihood's fisher and the derivatives?")
        values, vectors = torch.linalg.eigh(matrix)
        curvature.matrix = matrix = values.new_empty(0)
        if bool(values[0] < -1e-6 * values[-1].clamp(min=1.0)):
            raise ValueError(
                "Laplace: the precision is not positive definite: the curvature has the eigenvalue "
                f"{values[0].item():.3g}; is the likelihood's fisher positive semi-definite?"
            )
        dtype = self.loc.dtype
        self.prior_loc, self.prior_precision = prior
        self.log_likelihood = scale * curvature.log_likelihood
        self.eigenvalues, self.eigenvectors = values.clamp(min=0).to(dtype), vectors.to(dtype)
        self._set_root()

    @torch.no_grad()
    def _set_root(self) -> None:
        """The lower triangular root of P^-1/2 Q (eigenvalues + 1)^-1 Q^T P^-1/2."""
        values, vectors = self._fitted("eigenvalues").double(), self._fitted("eigenvectors")
        half = vectors / (values + 1).sqrt()
        half /= self._fitted("prior_precision").double().sqrt().unsqueeze(-1)
        # half half^T = L L^T with L^T the R of a QR decomposition: no squared condition number.
        upper = torch.linalg.qr(half.mT, mode="r").R
        upper *= upper.diagonal().sign().unsqueeze(-1)
        self.scale_tril = upper.mT.to(self.loc.dtype)


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
