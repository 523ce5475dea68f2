"""The result of a fit at the mode: the sums of the curvature, and the numbers of the evidence."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn.guides.laplace.data_pass import DataPass
from bayesnn.guides.laplace.evidence import Evidence, Maximum
from bayesnn.guides.laplace.origin import fixed_digests, likelihood_facts
from bayesnn.guides.laplace.prior import normal_prior
from bayesnn.guides.laplace.structure import Structure
from bayesnn.models import BNN

NUMBERS = ("log_likelihood", "examples", "observations", "factor")
TENSORS = ("prior_loc", "prior_precision", *NUMBERS)


class Fitted(nn.Module):
    """The result of a fit; nothing in it changes but the device. Another prior or noise makes
    another `Fitted`.

    Args:
        curvature: the sums of H, in the structure's form; several guides may share it.
        tensors: the six buffers below.
        likelihood: the likelihood's name and numbers at the fit, see `likelihood_facts`.
        fixed: digests of the weights that are not random, see `fixed_digests`.

    Attributes:
        prior_loc: means of the prior that the posterior has, [param].
        prior_precision: its precisions, [param].
        log_likelihood: log p(y | w*) of the examples seen, in nats.
        examples: how many were seen.
        observations: numbers in their targets.
        factor: what H is multiplied with, as the noise was fitted after the curvature was summed;
            otherwise 1.
    """

    prior_loc: Tensor
    prior_precision: Tensor
    log_likelihood: Tensor
    examples: Tensor
    observations: Tensor
    factor: Tensor

    def __init__(
        self,
        curvature: Structure,
        tensors: Mapping[str, Tensor],
        *,
        likelihood: dict[str, Any],
        fixed: dict[str, str],
    ) -> None:
        super().__init__()
        self.curvature = curvature
        for name in TENSORS:
            self.register_buffer(name, tensors[name])
        self.likelihood, self.fixed = likelihood, fixed

    def share(self, model: BNN) -> float:
        """The number of training examples over that of those seen."""
        return 1.0 if model.size is None else model.size / float(self.examples)

    def scale(self, model: BNN) -> float:
        """The factor of the summed curvature."""
        return self.share(model) * float(self.factor)

    def evidence(self, model: BNN, loc: Tensor) -> Evidence:
        """The marginal likelihood around the mode `loc`, [param]."""
        return Evidence(
            structure=self.curvature,
            scale=self.scale(model),
            log_likelihood=self.log_likelihood * self.share(model),
            observations=float(self.observations) * self.share(model),
            precision=self.prior_precision.double(),
            difference=(loc - self.prior_loc).double(),
        )

    def under_prior(self, model: BNN) -> "Fitted":
        """The fit under the prior of `model`."""
        return self._with(normal_prior(model), {}, self.likelihood)

    def under_maximum(self, best: Maximum, model: BNN, *, fit_noise: bool) -> "Fitted":
        """The fit under the prior, and the noise if it was fitted, of the evidence's maximum."""
        if not fit_noise:
            return self.under_prior(best.model)
        changed = {
            "log_likelihood": best.log_likelihood / self.share(model),
            "factor": self.factor / best.noise_variance,
        }
        return self._with(normal_prior(best.model), changed, likelihood_facts(best.model.likelihood))

    def _with(self, prior: tuple[Tensor, Tensor], changed: dict[str, Tensor], likelihood: dict[str, Any]) -> "Fitted":
        tensors = {name: getattr(self, name) for name in NUMBERS} | changed
        tensors["prior_loc"], tensors["prior_precision"] = prior
        return Fitted(self.curvature, tensors, likelihood=likelihood, fixed=self.fixed)


def collected(curvature: Structure, data: DataPass, before: Fitted | None = None) -> Fitted:
    """The sums over a pass over the training data, added to those of an earlier
    fit where there was one.
    """
    prior = normal_prior(data.model)
    curvature.collect(data)
    sums = {"log_likelihood": data.log_likelihood, "examples": data.seen, "observations": data.observations}
    tensors = {name: torch.as_tensor(value, dtype=torch.double, device=data.device) for name, value in sums.items()}
    if before is not None:
        tensors = {name: value + getattr(before, name) for name, value in tensors.items()}
    tensors["factor"] = torch.ones((), dtype=torch.double, device=data.device)
    tensors["prior_loc"], tensors["prior_precision"] = prior
    facts = likelihood_facts(data.model.likelihood)
    return Fitted(curvature, tensors, likelihood=facts, fixed=fixed_digests(data.model))
