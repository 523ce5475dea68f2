"""The sites of a trace: which are random, bases, densities, drawn values, one vector."""

from contextlib import nullcontext

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Size, Tensor

from bayesnn.sites import (
    base_of,
    from_vector,
    is_auxiliary,
    is_data,
    is_deterministic,
    latent_nodes,
    log_density,
    masked,
    sample_nodes,
    to_vector,
    weighted_sum,
    without_plates,
)


def everything() -> None:
    """One site of every kind."""
    pyro.param("p", torch.ones(()))
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("whole", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"is_auxiliary": True})
    pyro.deterministic("twice", 2 * w)
    pyro.factor("factor", w)
    with pyro.plate("data", 6, subsample_size=3), poutine.mask(mask=torch.tensor([True, True, False])):
        pyro.sample("y", dist.Normal(w, 2.0), obs=torch.tensor([1.0, 2.0, 9.0]))


@pytest.fixture
def trace() -> poutine.Trace:
    return poutine.trace(everything).get_trace()


def test_kinds_of_sites(trace: poutine.Trace) -> None:
    nodes = sample_nodes(trace.nodes)
    assert list(nodes) == ["w", "whole", "twice", "factor", "y"]
    assert list(latent_nodes(trace.nodes)) == list(latent_nodes(nodes)) == ["w", "whole"]
    assert [name for name, node in nodes.items() if is_auxiliary(node)] == ["whole", "factor"]
    assert [name for name, node in nodes.items() if is_deterministic(node)] == ["twice"]
    assert [name for name, node in nodes.items() if is_data(node)] == ["y"]


def test_densities_are_those_of_the_trace(trace: poutine.Trace) -> None:
    y = trace.nodes["y"]
    assert (log_density(y) != 0).tolist() == [True, True, True]
    assert (masked(log_density(y), y) != 0).tolist() == [True, True, False]
    w = trace.nodes["w"]["value"]
    both = dist.Normal(w, 2.0).log_prob(torch.tensor([1.0, 2.0])).sum()
    torch.testing.assert_close(weighted_sum(log_density(y), y), 2 * both)
    total = sum(weighted_sum(log_density(node), node) for node in sample_nodes(trace.nodes).values())
    torch.testing.assert_close(total, torch.as_tensor(trace.log_prob_sum()))


@pytest.mark.parametrize("mask", [None, True, False, torch.tensor([True, False])], ids=str)
@pytest.mark.parametrize("scale", [1.0, 3.0, torch.tensor([2.0, 5.0])], ids=str)
def test_masks_and_scales_of_every_form(mask: bool | Tensor | None, scale: float | Tensor) -> None:
    def model() -> None:
        with poutine.scale(scale=scale), nullcontext() if mask is None else poutine.mask(mask=mask):
            pyro.sample("y", dist.Normal(torch.zeros(2), 1.0), obs=torch.tensor([1.0, 4.0]))

    trace = poutine.trace(model).get_trace()
    node = trace.nodes["y"]
    torch.testing.assert_close(weighted_sum(log_density(node), node), torch.as_tensor(trace.log_prob_sum()))


def test_bases() -> None:
    normal = dist.Normal(torch.zeros(2, 3), 1.0)
    assert base_of(normal) is normal
    assert base_of(normal.to_event(1).to_event(1)) is normal
    torchs = torch.distributions.Normal(torch.zeros(2), 1.0)
    assert base_of(torch.distributions.Independent(torchs, 1)) is torchs
    hidden = normal.to_event(1).mask(torch.tensor([True, False])).to_event(1)
    assert isinstance(base_of(hidden), dist.MaskedDistribution)  # whose density is another
    assert base_of(hidden, dist.MaskedDistribution) is normal
    wide = dist.ExpandedDistribution(normal.to_event(2), Size([4]))
    assert base_of(wide) is wide
    assert base_of(wide, dist.ExpandedDistribution) is normal


@pytest.mark.parametrize(
    ("shape", "site", "leading", "found"),
    [
        ((3,), (3,), 0, (3,)),
        ((1, 1, 3), (3,), 0, (3,)),
        ((1,), (), 0, ()),
        ((5, 1, 3), (3,), 1, (5, 3)),
        ((5, 3), (3,), 1, (5, 3)),
        ((5, 1), (), 1, (5,)),
        ((1, 1, 1), (1, 1), 0, (1, 1)),
        ((2, 3), (3,), 0, None),
        ((3,), (1, 3), 0, None),
        ((3, 1), (3,), 0, None),
        ((6,), (2, 3), 0, None),
        ((5, 2, 3), (3,), 1, None),
        ((5,), (), 0, None),
    ],
)
def test_values_in_the_shape_of_their_site(
    shape: tuple[int, ...], site: tuple[int, ...], leading: int, found: tuple[int, ...] | None
) -> None:
    value = torch.arange(float(Size(shape).numel())).reshape(shape)
    fitting = without_plates(value, Size(site), leading)
    assert (None if fitting is None else tuple(fitting.shape)) == found
    assert fitting is None or torch.equal(fitting.flatten(), value.flatten())


def test_a_vector_and_back() -> None:
    values = {"a": torch.randn(2, 3), "b": torch.randn(()), "c": torch.randn(1, 2)}
    shapes = {name: value.shape for name, value in values.items()}
    vector = to_vector(values, shapes)
    assert vector.shape == (9,)
    back = from_vector(vector, shapes)
    assert list(back) == ["a", "b", "c"]
    assert all(torch.equal(back[name], values[name]) for name in values)
    draws = from_vector(torch.stack([vector, 2 * vector]), shapes)
    assert all(torch.equal(draws[name], torch.stack([value, 2 * value])) for name, value in values.items())
    assert torch.equal(to_vector(values, ["c", "a"]), torch.cat([values["c"].flatten(), values["a"].flatten()]))


def test_a_vector_is_a_copy() -> None:
    values = {"a": torch.zeros(3)}
    to_vector(values, values).add_(1)
    assert torch.equal(values["a"], torch.zeros(3))
