"""A latent variable for each example in the place of last-layer features: the model of V-TST."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Size, Tensor, nn

from bayesnn.functional import Inputs, batch_size, call, check_evaluation_mode
from bayesnn.handlers import param_site, prefix_of
from bayesnn.likelihoods import Likelihood
from bayesnn.models.checks import check_name, checked_size
from bayesnn.models.inputs import check_inputs
from bayesnn.models.observe import observe


class LatentHead(nn.Module):
    """z_i ~ N(0, I); y_i ~ likelihood(decode(z_i)): a latent vector for each example, and a small
    trained decoder.

    The model of V-TST. The network does not occur in it: it belongs to the guide, `AmortisedHead`,
    whose q(z | phi(x)) reads the frozen features of a trained network. Train both with
    `MeanFieldELBO`, whose KL divergence is exact, or with any ELBO of Pyro's:

        loss = n / batch sum_i [ kl_weight KL(q(z_i | x_i) || N(0, I)) - E_q log p(y_i | z_i) ]
            (nats)

    z is a *local* site: `predict` and `to_arviz` draw it together with its x. Any likelihood may
    be used.

    Args:
        latent: length of z.
        decoder: the outputs that a linear decoder gives, or a module z [batch, latent] -> outputs
            [batch, ...], of which the model keeps and trains a copy.
        likelihood: outputs [*draw, batch, out] -> distribution of y.
        kl_weight: weight of the KL divergence; 1 / latent as published by default, which tempers
            the posterior, 1 for Bayes' rule. 0 takes the prior away: with a guide that is a point
            (`AmortisedHead(..., point=True)`) it is TST. A `kl_weight` of the ELBO multiplies it.
        size: examples in the training data, by which batches are scaled; None = each call is all
            data.
        name: prefixes sites and plate with `name + "."`.

    Raises:
        ValueError: a latent length, size or kl_weight out of range; a decoder in training mode;
            inputs or targets that are not finite or do not fit; labels that the decoder has no
            output for.

    Reference: Jordahn, Olmos (2024), Decoupling feature extraction and classification layers for
    calibrated neural networks.

    >>> from bayesnn import likelihoods
    >>> model = LatentHead(16, 10, likelihoods.categorical, size=1000)
    >>> model(torch.zeros(5, 512), torch.arange(5)).shape, model.kl_weight
    (torch.Size([5, 10]), 0.0625)
    """

    def __init__(
        self,
        latent: int,
        decoder: "int | nn.Module",
        likelihood: Likelihood,
        *,
        kl_weight: float | None = None,
        size: int | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        if latent < 1:
            raise ValueError(f"LatentHead: z has at least one entry, not {latent}")
        self.size = checked_size("LatentHead", size)
        if kl_weight is not None and not (0 <= kl_weight < math.inf):
            raise ValueError(f"LatentHead: kl_weight is a number from 0, not {kl_weight}")
        check_name("LatentHead", name)
        self.decoder = nn.Linear(latent, decoder) if isinstance(decoder, int) else copy.deepcopy(decoder)
        check_evaluation_mode(self.decoder, "LatentHead")
        self.likelihood = likelihood
        self.latent, self.name = int(latent), name
        self.kl_weight = 1 / latent if kl_weight is None else float(kl_weight)
        self.local = frozenset({self.site})
        like = next(self.decoder.parameters(), torch.empty(0))
        self.to(device=like.device, dtype=like.dtype)  # a learned noise scale too

    @property
    def site(self) -> str:
        """The name of the latent site, one value an example."""
        return prefix_of(self.name) + "z"

    @property
    def sites(self) -> dict[str, Size]:
        """The global sites, of which there are none."""
        return {}

    def outputs(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """decode(z), [batch, out], for {site: z [batch, latent]}; x is not used."""
        if self.site not in values:
            raise ValueError(f"LatentHead: no value of {self.site!r}; there are {', '.join(values) or 'none'}")
        return call(self.decoder, {}, values[self.site])

    def outputs_of_chunks(self, values: Mapping[str, Tensor], parts: Sequence[Inputs]) -> Tensor:
        """decode(z) for z of all parts together."""
        return self.outputs(values, parts[0])

    def sample(self, x: Inputs) -> Tensor:
        """Draw z from its prior and return the outputs; observes nothing."""
        return self._sample(x, self.plate(x))

    def forward(self, x: Inputs, y: Tensor | None = None) -> Tensor:
        """Sample, then observe y (without y: sample it at the site "y"). Returns the outputs."""
        plate = self.plate(x)
        outputs = self._sample(x, plate)
        observe(outputs, self.likelihood, y, size=self.size, name=self.name, plate=plate)
        return outputs

    def plate(self, x: Inputs) -> Any:
        """The plate "data" for the examples of x."""
        check_inputs(x)
        return pyro.plate(prefix_of(self.name) + "data", batch_size(x), dim=-1)

    def weight_of_kl(self, x: "Inputs | None" = None, y: Tensor | None = None) -> float:
        """The weight of KL(q || p) in -ELBO, `kl_weight`: 1 for Bayes' rule."""
        return self.kl_weight

    def weighted(self, x: Inputs) -> AbstractContextManager[Any]:
        """The scale of z, kl_weight size / batch: in the guide it must be the same."""
        weight = self.weight_of_kl(x) * (1.0 if self.size is None else self.size / batch_size(x))
        scaled: AbstractContextManager[Any] = poutine.scale(scale=weight) if weight else poutine.mask(mask=False)
        return scaled

    def _sample(self, x: Inputs, plate: Any) -> Tensor:
        like = next(self.decoder.parameters(), torch.empty(0))
        prior = dist.Normal(like.new_zeros(self.latent), like.new_ones(()))
        with plate, self.weighted(x):
            z = pyro.sample(self.site, prior.to_event(1))
        prefix = prefix_of(self.name) + "decoder."
        values = {name: param_site(prefix + name, value) for name, value in self.decoder.named_parameters()}
        # particles and draws lead
        outputs = call(self.decoder, values, z.reshape(-1, self.latent))
        return outputs.reshape(z.shape[:-1] + outputs.shape[1:])
