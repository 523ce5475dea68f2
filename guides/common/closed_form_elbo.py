"""The base class of ELBOs with terms in closed form: they trace no densities."""

from functools import partial
from typing import Any

import torch
from pyro.infer.elbo import ELBO, ELBOModule
from pyro.infer.util import torch_item
from torch import Tensor

from bayesnn import tempering


class ClosedFormELBO(ELBO):
    """-ELBO by `_negative_elbo(model, guide, *args)`, in the three forms that Pyro's ELBOs have.

    A backward pass, which is what training is, notes the weight of the KL divergence on the guide,
    so that `to_arviz` can say that a posterior is tempered. Evaluating an objective leaves no
    note.

    Attributes:
        kl_weight: the objective's own factor; `weight_in` is the weight that holds.
    """

    kl_weight: float = 1.0

    def __call__(self, model: Any, guide: Any) -> "ClosedFormLoss":
        """The loss module."""
        return ClosedFormLoss(model, guide, self)

    @property
    def options(self) -> dict[str, str | float]:
        """Options of the objective for a report of the fit, beside its name and weight."""
        return {}

    def weight_in(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float | None:
        """The weight of the KL divergence: `kl_weight` times what the model states.

        A model that is hidden in a handler is asked through the guide, as `guide.model`.
        """
        stating = model if hasattr(model, "weight_of_kl") else getattr(guide, "model", model)
        return tempering.kl_weight(self.kl_weight, stating, *args, **kwargs)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """-ELBO in nats, differentiable in the parameters of model and guide."""
        loss = self._negative_elbo(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.register_hook(partial(_noted, guide, self.weight_in(model, guide, *args, **kwargs)))
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

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} computes its terms in closed form and traces no densities")


class ClosedFormLoss(ELBOModule):
    """The loss module of a model and a guide under such an ELBO."""

    elbo: ClosedFormELBO

    @property
    def metadata(self) -> dict[str, str | float]:
        """The facts about its objective that a report of the fit states.

        The weight is in words where each batch has its own.
        """
        weight = self.elbo.weight_in(self.model, self.guide)
        return {
            "objective": type(self.elbo).__name__,
            "kl_weight": "that of each batch" if weight is None else weight,
            **self.elbo.options,
        }

    def extra_repr(self) -> str:
        """The objective, its weight of the KL divergence and its options."""
        return ", ".join(f"{name}={value}" for name, value in self.metadata.items())


def _noted(guide: Any, weight: float | None, gradient: Tensor) -> None:
    tempering.note(guide, tempering.of_weight(weight))
