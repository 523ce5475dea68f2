"""Learned generative parameters under the classical `SVI`, which finds
parameters among a trace's "param" sites.
"""

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import MeanField


@pytest.mark.parametrize("guide_of", [MeanField, AutoNormal])
@pytest.mark.usefixtures("parameter_mode")
def test_svi_moves_learned_scales_of_two_models_apart(guide_of: type) -> None:
    nets = [nn.Linear(2, 1).eval() for _ in range(2)]
    models = [
        BNN(net, subset.everything(net), priors.normal(learned(1.0)), likelihoods.normal(learned(0.3)), name=name)
        for net, name in zip(nets, "ab", strict=True)
    ]
    before = [{n: p.clone() for n, p in net.named_parameters()} for net in nets]
    x, y = torch.randn(20, 2), torch.randn(20, 1)

    def both(x: torch.Tensor, y: torch.Tensor) -> None:
        for model in models:
            model(x, y)

    guide = guide_of(both, x, y) if guide_of is MeanField else guide_of(both)
    svi = SVI(both, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(3):
        svi.step(x, y)
    for model, initial in zip(models, before, strict=True):
        assert model.prior.scale().item() != pytest.approx(1.0, abs=0.01)
        assert model.likelihood.scale().item() != pytest.approx(0.3, abs=0.01)
        assert all(torch.equal(initial[name], p) for name, p in model.net.named_parameters())
