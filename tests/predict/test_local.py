"""Models with one latent value for each example: drawn with their inputs, chunk by chunk."""

from collections.abc import Mapping, Sequence

import pyro
import pytest
import torch
from pyro import distributions as dist
from statistical import assert_mean
from torch import Size, Tensor, nn

from bayesnn import likelihoods
from bayesnn.models import observe
from bayesnn.predict import PredictiveDistribution, predict, predictive

X = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """z_i ~ N(0, I); y_i ~ N(z_i W^T, s^2) with a global W and a global latent
    s: a small model of this kind.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.likelihood = likelihoods.normal(dist.HalfNormal(1.0))
        self.size, self.name = None, name
        self.prefix = name + "." if name else ""
        self.local = frozenset({self.prefix + "z"})

    @property
    def sites(self) -> dict[str, Size]:
        return {self.prefix + "W": Size([2, 3])}

    def outputs(self, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return values[self.prefix + "z"] @ values[self.prefix + "W"].mT

    def outputs_of_chunks(self, values: Mapping[str, Tensor], parts: Sequence[Tensor]) -> Tensor:
        raise AssertionError("local values belong to one chunk")

    def sample(self, x: Tensor) -> Tensor:
        W = pyro.sample(self.prefix + "W", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
        with pyro.plate(self.prefix + "data", len(x)):
            z = pyro.sample(self.prefix + "z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        return z @ W.mT

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        outputs = self.sample(x)
        observe(outputs, self.likelihood, y, name=self.name)
        return outputs


class Guide(nn.Module):
    """q(W) q(s) q(z | x), with z = x to five digits; W and s are told apart by their draw."""

    def __init__(self, prefix: str = "", noise: float = 1e-6) -> None:
        super().__init__()
        self.prefix, self.noise = prefix, noise
        self.batches: list[int] = []

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        self.batches.append(len(x))
        W = pyro.sample(self.prefix + "W", dist.Normal(torch.ones(2, 3), 1.0).to_event(2))
        pyro.sample(self.prefix + "y_scale", dist.Delta(W.sum().exp()))
        with pyro.plate(self.prefix + "data", len(x)):
            pyro.sample(self.prefix + "z", dist.Normal(x, self.noise).to_event(1))


@pytest.mark.parametrize("name", ["", "head"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_each_example_gets_its_own_value_and_each_draw_is_one_function(name: str, chunk: int) -> None:
    model, guide = Head(name), Guide(name + "." if name else "")
    outputs = predict(guide, X, 5, model=model, chunk=chunk)
    assert outputs.shape == (5, 7, 2)
    # every draw is linear in x, with its own W
    W = torch.linalg.lstsq(X.expand(5, 7, 3), outputs).solution.mT
    torch.testing.assert_close(outputs, X @ W.mT, rtol=1e-3, atol=1e-3)
    assert (W[0] - W[1]).abs().max() > 0.1
    assert set(guide.batches) == {len(part) for part in X.split(chunk)}


def test_local_values_are_drawn_anew_for_every_draw() -> None:
    outputs = predict(Guide(noise=0.5), X[:1].expand(400, 3), 2, model=Head())
    for one in outputs:  # 400 examples with the same x: their values differ, with the guide's mean
        W_x = one.mean(0)
        assert one.std(0).min() > 0.1
        assert_mean(one, W_x)


def test_latent_scales_go_with_the_weights_of_their_draw() -> None:
    p = predictive(Guide(), X, 6, model=Head(), chunk=3)
    assert isinstance(p, PredictiveDistribution)
    components = p.components.base_dist
    W = torch.linalg.lstsq(X.expand(6, 7, 3), components.loc).solution
    scale = W.sum((1, 2)).exp().reshape(6, 1, 1).expand(6, 7, 2)
    torch.testing.assert_close(components.scale.expand(6, 7, 2), scale, rtol=1e-2, atol=1e-4)


def test_draws_without_a_guide() -> None:
    held = {"W": torch.zeros(3, 2, 3), "y_scale": torch.ones(3)}
    with pytest.raises(TypeError, match=r"\['z'\] belong to their inputs and need a guide, not a dict of draws"):
        predict(held, X, 3, model=Head())


def test_a_guide_without_the_local_site() -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("W", dist.Normal(torch.ones(2, 3), 1.0).to_event(2))

    with pytest.raises(ValueError, match="the guide draws no 'z', which the model has for every example"):
        predict(guide, X, 3, model=Head())
