"""One block of a Laplace approximation, with all others at the mode."""

from typing import Any

import pyro
from pyro import distributions as dist
from torch import Tensor

from bayesnn.guides.laplace.guide import Laplace
from bayesnn.handlers import prefix_of
from bayesnn.models import BNN


class BlockConditional:
    """q(w_b | w_-b = w*_-b): a Pyro guide that draws one block and leaves the others at the mode.

    Its k-hat says whether the normal approximation of *that block* can stand for the posterior.
    Over all weights together a k-hat is nearly always above 0.7, since the weights' errors add up.

    Args:
        guide: fitted.
        site: the block.

    Raises:
        ValueError: no such block.

    >>> import torch
    >>> from torch import nn
    >>> from bayesnn import likelihoods, priors, subset
    >>> from bayesnn.arviz import khat, to_arviz
    >>> net = nn.Linear(2, 1)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> x, y = torch.randn(20, 2), torch.randn(20, 1)
    >>> guide = Laplace(model).fit([(x, y)])
    >>> trees = {site: to_arviz(BlockConditional(guide, site), x, y, draws=100) for site in model.sites}
    >>> {site: khat(tree).shape for site, tree in trees.items()}
    {'weight': (1,), 'bias': (1,)}
    """

    def __init__(self, guide: Laplace, site: str) -> None:
        if site not in guide.model.sites:
            raise ValueError(
                f"BlockConditional: the guide has no block {site!r}; it has {', '.join(guide.model.sites)}"
            )
        self.guide, self.site = guide, site

    @property
    def model(self) -> BNN:
        """The model of the guide."""
        return self.guide.model

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample all sites; the arguments are the model's and are not used."""
        sites = self.model.sites
        values = self.guide.mode()
        block = self.model.subset.names[list(sites).index(self.site)]
        own = self.guide.posterior.conditional(block, values[self.site], self._entries())
        if own.event_shape == sites[self.site]:
            values[self.site] = pyro.sample(self.site, own)
        else:
            name = prefix_of(self.model.name) + "_laplace"
            flat = pyro.sample(name, own, infer={"is_auxiliary": True})
            values[self.site] = flat.reshape(flat.shape[:-1] + sites[self.site])
        for site, value in values.items():
            if site != self.site or own.event_shape != sites[self.site]:
                pyro.sample(site, dist.Delta(value, event_dim=len(sites[site])))
        return values

    def _entries(self) -> slice:
        """Where the block lies in the vector of all."""
        start = 0
        for site, shape in self.model.sites.items():
            if site == self.site:
                break
            start += shape.numel()
        return slice(start, start + self.model.sites[self.site].numel())
