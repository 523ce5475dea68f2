"""Passes over parts of the data give what one pass over all gives; memory is
asked for before it is taken.
"""

import math
from collections.abc import Mapping

import numpy as np
import pyro
import pytest
import torch
from nets import NETS
from pyro import distributions as dist
from torch import Size, Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import to_groups

EXACT = ("posterior", "observed_data", "log_prior", "constant_data")


@pytest.mark.parametrize("size", [None, 30])
@pytest.mark.parametrize("kind", ["conv", "dict", "lstm"])
def test_chunks_change_nothing(kind: str, size: int | None) -> None:
    net, _ = NETS[kind]()
    x = {
        "conv": torch.randn(7, 1, 12, 12),
        "dict": {"a": torch.randn(7, 3), "b": torch.randn(7, 1), "scale": 0.5},
        "lstm": torch.randn(7, 4, 2),
    }[kind]
    model = BNN(
        net, subset.everything(net), priors.hierarchical(scale=dist.HalfNormal(1.0)), likelihoods.categorical, size=size
    )
    y = torch.randint(0, 2, (7,))
    draws = {site: torch.randn(4, *shape) for site, shape in model.sites.items()}
    draws |= {f"{block}_scale": torch.rand(4) for block in model.subset.names}
    whole = to_groups(draws, x, y, model=model, probe=x)
    parts = to_groups(draws, x, y, model=model, probe=x, chunk=3)
    assert whole.dims == parts.dims
    for group, arrays in whole.arrays.items():
        assert parts.arrays[group].keys() == arrays.keys()
        for name, value in arrays.items():
            if group == "posterior_predictive":
                assert value.shape == parts.arrays[group][name].shape == (1, 4, 7)
            elif group in EXACT and name != "f_probe":
                np.testing.assert_array_equal(value, parts.arrays[group][name])
            elif group != "metadata":
                np.testing.assert_allclose(value, parts.arrays[group][name], rtol=2e-5, atol=1e-6)


class PerExample(nn.Module):
    """y_i ~ N(w z_i, 1) with a latent z_i ~ N(0, 1) of each example: the least
    model that has local sites.
    """

    local = frozenset({"z"})
    name = ""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.size, self.likelihood = size, likelihoods.normal(1.0)
        self.sites = {"w": Size([1])}

    def outputs(self, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return values["w"] * values["z"]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        scale = 1.0 if self.size is None else self.size / len(x)
        with pyro.plate("data", len(x), dim=-1), pyro.poutine.scale(scale=scale):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x), 1]).to_event(1))
            pyro.sample("y", self.likelihood(w * z), obs=y)
        return w * z


class PerExampleGuide(nn.Module):
    """q(z_i | x_i) = N(x_i, 0.5^2), q(w) = N(1, 0.1^2)."""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.sample("w", dist.Normal(1.0, 0.1).expand([1]).to_event(1))
        scale = 1.0 if self.size is None else self.size / len(x)
        with pyro.plate("data", len(x), dim=-1), pyro.poutine.scale(scale=scale):
            pyro.sample("z", dist.Normal(x, 0.5).to_event(1))


@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("chunk", [100, 3])
def test_sites_of_examples(size: int | None, chunk: int) -> None:
    """They are drawn with their part of the data, and counted as often as their example."""
    x, y = torch.randn(8, 1), torch.randn(8, 1)
    model, guide = PerExample(size), PerExampleGuide(size)
    arrays = to_groups(guide, x, y, model=model, draws=5, chunk=chunk, prior=2).arrays
    w, z = (torch.as_tensor(arrays["posterior"][name][0]) for name in ("w", "z"))
    assert z.shape == (5, 8, 1)
    each = 1 if size is None else size / 8
    likelihood = dist.Normal(w.unsqueeze(1) * z, 1.0).log_prob(y).squeeze(-1)
    joint = dist.Normal(0, 1).log_prob(w).sum(-1) + each * (
        likelihood.sum(-1) + dist.Normal(0, 1).log_prob(z).sum((-1, -2))
    )
    log_q = dist.Normal(1.0, 0.1).log_prob(w).sum(-1) + each * dist.Normal(x, 0.5).log_prob(z).sum((-1, -2))
    np.testing.assert_allclose(arrays["log_likelihood"]["y"][0], likelihood, rtol=1e-5)
    np.testing.assert_allclose(arrays["sample_stats"]["lp"][0], joint, rtol=1e-5)
    np.testing.assert_allclose(arrays["sample_stats"]["log_q"][0], log_q, rtol=1e-5)
    assert arrays["prior"].keys() == {"w"}
    with pytest.raises(ValueError, match=r"no values for \['z'\]"):
        to_groups(guide, x, y, model=model, probe=x)


def test_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesnn.functional.memory.available", lambda device: 10_000)
    net, x = NETS["mlp"]()
    model = BNN(net, subset.last_layer(net), priors.normal(), likelihoods.categorical)
    draws = {site: torch.zeros(1, *shape) for site, shape in model.sites.items()}
    y = torch.zeros(len(x), dtype=torch.long)
    assert to_groups(draws, x, y, model=model).arrays["log_likelihood"]["y"].shape == (1, 1, 3)
    many = {site: value.expand(math.ceil(10_000 / (3 * 4)), *value.shape[1:]) for site, value in draws.items()}
    with pytest.raises(MemoryError, match=r"3 data at 834 draws.*fewer draws"):
        to_groups(many, x, y, model=model)
