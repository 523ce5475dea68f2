"""What ELBOs with terms in closed form share: they trace no densities."""

from typing import Any

import torch
from pyro.infer.elbo import ELBO
from pyro.infer.util import torch_item
from torch import Tensor


class ClosedFormELBO(ELBO):
    """-ELBO by `differentiable_loss(model, guide, *args)`, in the three forms that Pyro's ELBOs have."""

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """-ELBO in nats, with its graph."""
        raise NotImplementedError

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """-ELBO as a number, after its gradients were added to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return torch_item(loss)

    @torch.no_grad()
    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """-ELBO as a number."""
        return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} computes its terms in closed form and traces no densities")
