"""Scales of priors: fixed, learned and latent, with axes of their own, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from tracing import trace_of

from bayesnn import learned, priors


def test_fixed_scales_keep_the_networks_precision() -> None:
    prior: Any = priors.normal(0.1)
    scale = prior("w", torch.zeros(3, dtype=torch.double)).scale
    assert scale.item() == 0.1


def test_scales_with_axes_belong_to_the_last_axes_of_a_block() -> None:
    scale = torch.tensor([1.0, 2.0, 3.0])
    prior: Any = priors.normal(scale)("w", torch.zeros(4, 3))
    assert prior.expand([4, 3]).scale.tolist() == [[1.0, 2.0, 3.0]] * 4
    latent = priors.normal(dist.HalfCauchy(torch.ones(3)))
    trace = trace_of(latent, "w", torch.zeros(4, 3))
    assert trace.nodes["w_scale"]["fn"].event_shape == (3,)
    assert trace.nodes["_RETURN"]["value"].scale.shape == (1, 3)


def test_the_centre_is_a_copy() -> None:
    net = mlp()
    before = net[0].bias.detach().clone()
    prior = priors.around(net, 0.1)
    with torch.no_grad():
        net[0].bias.add_(1)
    assert torch.equal(prior("0.bias", before).loc, before)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "negative": (lambda: priors.normal(-1.0), "priors.normal: scale must be positive and finite, not -1.0"),
    "zero": (lambda: priors.laplace(0), "priors.laplace: scale must be positive and finite, not 0"),
    "nan": (lambda: priors.student_t(3, math.nan), "priors.student_t: scale must be positive and finite, not nan"),
    "df": (lambda: priors.student_t(-3), "priors.student_t: df must be positive and finite, not -3"),
    "tensor": (lambda: priors.normal(torch.tensor([1.0, 0.0])), r"must be positive and finite, not \[1.0, 0.0\]"),
    "infinite": (lambda: priors.around(mlp(), math.inf), "priors.around: scale must be positive and finite, not inf"),
    "gain": (lambda: priors.fan_in(mlp(), gain=-1), "priors.fan_in: gain must be positive and finite, not -1"),
    "factor": (lambda: priors.rescaled(priors.normal(), 0.0), "priors.rescaled: factor must be positive and finite"),
    "learned": (lambda: learned(0.0), "learned: the initial value must be positive and finite, not 0.0"),
    "word": (
        lambda: priors.normal("wide"),  # type: ignore[arg-type]
        r"learned\(...\), or a distribution of pyro.distributions, not builtins.str",
    ),
    "torch's own": (lambda: priors.normal(torch.distributions.HalfCauchy(1.0)), "pyro.distributions, not torch.dist"),  # type: ignore[arg-type]
    "neither": (lambda: priors.hierarchical(), "give exactly one of scale= and variance="),
    "both": (
        lambda: priors.hierarchical(scale=dist.HalfCauchy(1.0), variance=dist.InverseGamma(2.0, 1.0)),
        "give exactly one of scale= and variance=",
    ),
    "a number": (lambda: priors.hierarchical(scale=1.0), r"not 1.0; for a fixed scale use normal\(...\)"),  # type: ignore[arg-type]
    "no centre": (lambda: priors.around({"a": torch.zeros(2)})("b", torch.zeros(2)), "no centre for 'b'; .* are a"),
    "centre's shape": (
        lambda: priors.around({"a": torch.zeros(2)})("a", torch.zeros(3)),
        r"the centre of 'a' has shape \(2,\), .* \(3,\); where only some entries are random give around\(subset.take",
    ),
    "other network": (lambda: priors.fan_in(mlp())("z", torch.zeros(1)), "'z' is no parameter of the network"),
    "not normal": (
        lambda: priors.rescaled(priors.laplace(), 2.0)("w", torch.zeros(1)),
        "the prior of 'w' is Laplace, not normal",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (2.0, 3.0, {"a": 6.0, "b": 6.0}),
        (2.0, {"a": 3.0, "b": 0.5}, {"a": 6.0, "b": 1.0}),
        ({"a": 2.0, "b": 5.0}, 3.0, {"a": 6.0, "b": 15.0}),
        ({"a": 2.0, "b": 5.0}, {"a": 3.0, "b": 0.5}, {"a": 6.0, "b": 2.5}),
    ],
)
def test_factors_of_factors_multiply_and_do_not_nest(first: Any, second: Any, expected: dict[str, float]) -> None:
    prior = priors.rescaled(priors.rescaled(priors.normal(0.5), first), second)
    assert type(prior.prior) is type(priors.normal(0.5))
    for name, factor in expected.items():
        assert prior(name, torch.zeros(3)).scale.item() == pytest.approx(0.5 * factor)
