"""The base class of the ELBOs with noise in the layers."""

from typing import Any

import torch
from pyro import distributions as dist
from pyro.poutine.messenger import Messenger
from torch import Tensor

from bayesnn.functional import Inputs, check_layers, mode_dependent, parameters
from bayesnn.guides.mean_field.elbo import MeanFieldELBO
from bayesnn.guides.mean_field.guide import MeanField
from bayesnn.guides.mean_field.layer_noise import layer_noise_outputs
from bayesnn.guides.mean_field.layer_noise_rules import Product
from bayesnn.guides.mean_field.layer_noise_tensors import NormalTensor
from bayesnn.models import BNN
from bayesnn.models.inputs import check_inputs
from bayesnn.models.observe import observe
from bayesnn.sites import base_of


class LayerNoiseELBO(MeanFieldELBO):
    """`MeanFieldELBO` with other draws: a subclass says what noise the outputs of a layer have."""

    def _negative_elbo(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        caller = type(self).__name__
        if not isinstance(guide, MeanField) or not isinstance(model, BNN):
            raise TypeError(
                f"{caller}: noise of layers needs a BNN and a MeanField guide themselves, not {type(model).__name__} "
                f"and {type(guide).__name__}; use MeanFieldELBO or Trace_ELBO for others"
            )
        check_layers(mode_dependent(model.net), caller)
        means = _Means(model)

        def undrawn(*args: Any, **kwargs: Any) -> Any:
            with means:
                return guide(*args, **kwargs)

        def noisy(x: Inputs, y: Tensor | None = None) -> Tensor:
            check_inputs(x)
            outputs = layer_noise_outputs(model, means.full(model.sample_blocks()), x, self._noise)
            observe(outputs, model.likelihood, y, size=model.size, name=model.name)
            return outputs

        return self._mean_over_draws(noisy, undrawn, args, kwargs, means.normals)

    def _noise(self, layer: Product) -> Tensor:
        raise NotImplementedError


class _Means(Messenger):
    """Puts the means of a guide in the place of its draws of weights, and keeps
    its standard deviations.
    """

    def __init__(self, model: BNN) -> None:
        super().__init__()
        self.model = model
        self.normals: dict[str, NormalTensor] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = base_of(msg["fn"])
        if msg["name"] in self.model.sites and type(fn) is dist.Normal:
            normal = self.normals[msg["name"]] = NormalTensor(fn.loc, fn.scale)
            msg["value"] = normal.loc

    def full(self, values: dict[str, Tensor]) -> dict[str, NormalTensor | Tensor]:
        """{parameter: normal or value, of its whole shape}: entries that are
        not random have no deviation.
        """
        subset, held = self.model.subset, parameters(self.model.net)
        sites = dict(zip(subset.names, self.model.sites, strict=True))
        locs = subset.put(held, {block: values[site] for block, site in sites.items()})
        zeros = {block: torch.zeros_like(held[block]) for block, chosen in subset.index.items() if chosen is not None}
        deviations = {block: self.normals[site].scale for block, site in sites.items() if site in self.normals}
        others = {block: torch.zeros_like(values[site]) for block, site in sites.items() if site not in self.normals}
        scales = subset.put(zeros, {**deviations, **others})
        return {**locs, **{block: NormalTensor(locs[block], scales[block]) for block in deviations}}
