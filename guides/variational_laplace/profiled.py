"""Variational Laplace whose variances are set to their optimum instead of being learned."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn.guides.common.closed_form_elbo import ClosedFormLoss
from bayesnn.guides.fisher.protocol import Curvature
from bayesnn.guides.variational_laplace.variances import check_guide, fit_variances


class ProfiledVariances(nn.Module):
    """max_S of the ELBO: variational Laplace whose variances are not learned but set, every few
    steps.

    A loss module around that of `VariationalLaplaceELBO()(model, guide)`, for `bayesnn.fit.fit`
    and any optimiser. Each `every_calls` calls make a pass over the data for `fit_variances`; the
    means alone are trained. At fixed variances the gradient in the means is that of the profiled
    objective, by the envelope theorem; between two passes it is as old as the variances are.

    Args:
        loss: whose guide is a `MeanField` or a `SharedVariance`; its `log_scale` leaves training.
        loader: the training data, each example once.
        every_calls: calls between passes; an epoch's number of batches makes one pass an epoch.
        curvature: as in `fit_variances`.

    Raises:
        ValueError: as `fit_variances`; fewer than one call.
        TypeError: as `fit_variances`.
    """

    calls: Tensor

    def __init__(
        self, loss: ClosedFormLoss, loader: Iterable[Any], *, every_calls: int, curvature: Curvature | None = None
    ) -> None:
        super().__init__()
        check_guide(loss.guide)
        if every_calls < 1:
            raise ValueError(f"ProfiledVariances: at least one call between passes is needed, not {every_calls}")
        self.loss, self.every_calls = loss, every_calls
        self._data = (loader, curvature)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self._guide.log_scale.requires_grad = False

    @property
    def _guide(self) -> Any:
        return self.loss.guide

    @property
    def model(self) -> Any:
        """The model, whose size `fit` compares with the data's."""
        return self.loss.model

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """-ELBO at the present variances."""
        if int(self.calls) % self.every_calls == 0:
            loader, curvature = self._data
            fit_variances(self._guide, loader, kl_weight=self.loss.elbo.kl_weight, curvature=curvature)
        self.calls += 1
        return self.loss(*args, **kwargs)
