"""What ELBOs with terms in closed form share: they trace no densities, and say how they weigh the KL divergence."""

from functools import partial
from typing import Any

import torch
from pyro.infer.elbo import ELBO, ELBOModule
from pyro.infer.util import torch_item
from torch import Tensor

from bayesnn.models.tempering import note_kl_weight


class ClosedFormELBO(ELBO):
    """-ELBO by `_negative_elbo(model, guide, *args)`, in the three forms that Pyro's ELBOs have.

    A backward pass, which is what training is, leaves `kl_weight` as a note on the guide, so that `to_arviz` can say
    that a posterior is tempered. Evaluating an objective leaves none.
    """

    kl_weight: float = 1.0

    def __call__(self, model: Any, guide: Any) -> "ClosedFormLoss":
        """The loss module."""
        return ClosedFormLoss(model, guide, self)

    @property
    def metadata(self) -> dict[str, str | float]:
        """What a report of the fit should say of its objective."""
        return {"objective": type(self).__name__, "kl_weight": self.kl_weight}

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """-ELBO in nats, differentiable in the parameters of model and guide."""
        loss = self._negative_elbo(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.register_hook(partial(_noted, guide, self._weight_in(model, *args, **kwargs)))
        return loss

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """-ELBO as a number, after its gradients were added to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return torch_item(loss)

    @torch.no_grad()
    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """-ELBO as a number."""
        return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def _negative_elbo(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError

    def _weight_in(self, model: Any, *args: Any, **kwargs: Any) -> float:
        """The weight of the KL divergence in this call; a model may have one of its own."""
        return self.kl_weight

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} computes its terms in closed form and traces no densities")


class ClosedFormLoss(ELBOModule):
    """The loss module that such an ELBO makes of a model and a guide."""

    elbo: ClosedFormELBO

    @property
    def metadata(self) -> dict[str, str | float]:
        """What a report of the fit should say of its objective."""
        return self.elbo.metadata

    def extra_repr(self) -> str:
        """The objective's options."""
        return ", ".join(f"{name}={value}" for name, value in self.metadata.items())


def _noted(guide: Any, kl_weight: float, gradient: Tensor) -> None:
    note_kl_weight(guide, kl_weight)
