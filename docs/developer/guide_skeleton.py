"""A guide to copy: a normal distribution with one shared standard deviation."""

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.models import BNN


class SharedScale(nn.Module):
    """q(w) = N(w; m, s^2 I): every weight has its own mean and all share one standard deviation.

    A guide is an `nn.Module` that owns its variational parameters, created at construction and
    never views of the network's (clone). It samples every latent site of the model, under the
    model's names. Its `model` makes it a `Guide`
    (`bayesnn/models/protocol.py`): predictions need no `model=`, and refuse another model.

    Args:
        model: a `BNN`; its weights are where the means start.
        scale: initial standard deviation, in units of the weights.

    Reference: name the paper whose method this is.

    >>> from bayesnn import likelihoods, priors, subset
    >>> net = nn.Linear(3, 1)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(0.1))
    >>> sorted(SharedScale(model)())
    ['bias', 'weight']
    """

    def __init__(self, model: BNN, scale: float = 0.01) -> None:
        super().__init__()
        # in a tuple: a registered model would have its parameters counted twice
        self._model = (model,)
        self.loc = nn.ParameterList(model.values().values())
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    @property
    def model(self) -> BNN:
        """The model that the guide approximates the posterior of."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; the arguments are the model's and are not used."""
        scale = self.log_scale.exp()
        return {
            site: pyro.sample(site, dist.Normal(loc, scale).to_event(loc.dim()))
            for site, loc in zip(self.model.sites, self.loc, strict=True)
        }
