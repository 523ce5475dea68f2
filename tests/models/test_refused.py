"""Models that cannot be: subsets, sizes, names and priors that do not fit; one
clear error each.
"""

from collections.abc import Callable

import pytest
import torch
from conftest import Untouched
from nets import NETS, mlp
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors
from bayesnn.subset import everything, last_layer, named

BATCH = 3


GOOD = torch.zeros(BATCH, 3)


def _size(size: object) -> Callable[[nn.Module], object]:
    return lambda net: BNN(net, everything(net), priors.normal(), likelihoods.categorical, size=size)  # type: ignore[arg-type]


MAKING: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "empty subset": (
        lambda net: BNN(net, everything(net) - everything(net), priors.normal(), likelihoods.categorical),
        "BNN: the subset is empty, so nothing is random",
    ),
    "another network's subset": (
        lambda net: BNN(net, everything(mlp(hidden=7)), priors.normal(), likelihoods.categorical),
        r"'0.weight' has shape \(7, 3\), but this one has shape \(4, 3\)",
    ),
    "another kind of network's": (
        lambda net: BNN(net, last_layer(NETS["lstm"]()[0]), priors.normal(), likelihoods.categorical),
        "whose 'head.weight' has shape .* but this one has no such parameter",
    ),
    "unknown name": (
        lambda net: BNN(net, named(net, "0.wieght"), priors.normal(), likelihoods.categorical),
        "no parameter or module '0.wieght'; did you mean '0.weight'",
    ),
    "size 0": (_size(0), "size is the number of training examples, a positive integer or None, not 0"),
    "size -5": (_size(-5), "a positive integer or None, not -5"),
    "size 2.5": (_size(2.5), "a positive integer or None, not 2.5"),
    "slash": (
        lambda net: BNN(net, everything(net), priors.normal(), likelihoods.categorical, name="a/b"),
        "the name 'a/b' has a '/', which ArviZ refuses",
    ),
}


@pytest.mark.parametrize("case", MAKING)
def test_making_a_model(case: str, untouched: Untouched) -> None:
    make, message = MAKING[case]
    net = mlp()
    with untouched(net), pytest.raises(ValueError, match=message):
        make(net)


def no_distribution(name: str, value: Tensor) -> Tensor:
    return value


def torchs_own(name: str, value: Tensor) -> torch.distributions.Distribution:
    return torch.distributions.Normal(value, 1.0)


def too_long(name: str, value: Tensor) -> dist.TorchDistribution:
    return dist.Normal(torch.zeros(5), 1.0)


def too_many_axes(name: str, value: Tensor) -> dist.TorchDistribution:
    return dist.Normal(torch.zeros(*value.shape, 1), 1.0)


def event_too_long(name: str, value: Tensor) -> dist.TorchDistribution:
    return dist.MultivariateNormal(torch.zeros(5), torch.eye(5))


PRIORS: dict[str, tuple[Callable[[str, Tensor], object], str]] = {
    "tensor": (no_distribution, "prior of '2.bias': a distribution of pyro.distributions is needed, not torch.Tensor"),
    "torch's own": (torchs_own, "prior of '2.bias': a distribution of pyro.distributions is needed, not torch.distrib"),
    "too long": (too_long, r"prior of '2.bias': its shape \(5,\) \+ \(\) does not broadcast to the block's \(2,\)"),
    "too many axes": (too_many_axes, r"its shape \(2, 1\) \+ \(\) does not broadcast to the block's \(2,\)"),
    "event": (event_too_long, r"its shape \(\) \+ \(5,\) does not broadcast to the block's \(2,\)"),
}


@pytest.mark.parametrize("case", PRIORS)
def test_priors_of_the_wrong_kind(case: str, untouched: Untouched) -> None:
    prior, message = PRIORS[case]
    net = mlp()
    model = BNN(net, named(net, "2.bias"), prior, likelihoods.categorical)  # type: ignore[arg-type]
    with untouched(net), pytest.raises((ValueError, TypeError), match=message):
        model(GOOD, torch.zeros(3, dtype=torch.long))


def test_missing_values_of_a_site() -> None:
    net = mlp()
    model = BNN(net, everything(net), priors.normal(), likelihoods.categorical, name="net")
    values = model.values()
    del values["net.2.bias"]
    with pytest.raises(ValueError, match=r"no value of 'net.2.bias', which is random; there are net.0.weight, "):
        model.outputs(values, GOOD)
