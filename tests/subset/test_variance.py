"""`largest_variance`: the diagonal Gauss-Newton ranking of Daxberger et al.
(2021), against the dense oracle.
"""

from collections.abc import Callable
from typing import Any

import oracle
import pyro
import pytest
import torch
from conftest import Untouched
from nets import NETS, mlp
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import learned, likelihoods
from bayesnn.functional import call, parameters
from bayesnn.subset import everything, largest_variance, named

Batches = list[tuple[Tensor, Tensor]]


def batches(count: int = 3, size: int = 4) -> Batches:
    return [(torch.randn(size, 3), torch.zeros(size)) for _ in range(count)]


def fisher_diagonal(net: nn.Module, loader: Batches, likelihood: Any) -> Tensor:
    x = torch.cat([x for x, _ in loader])
    return oracle.ggn(lambda v, x: call(net, v, x), parameters(net), x, likelihood.fisher).diagonal()


def mask_of(net: nn.Module, k: int, loader: Batches, likelihood: Any = likelihoods.categorical) -> Tensor:
    """Which of the network's concatenated weights are chosen, [param]."""
    subset = largest_variance(net, loader, likelihood, k)
    held = {name: torch.zeros_like(value) for name, value in parameters(net).items()}
    ones = {name: torch.ones_like(value) for name, value in subset.take(net).items()}
    return oracle.flat({**held, **subset.put(held, ones)}).bool()


@pytest.mark.parametrize("likelihood", [likelihoods.categorical, likelihoods.normal(0.3), likelihoods.bernoulli])
def test_it_takes_the_smallest_positive_fisher_informations(likelihood: object, untouched: Untouched) -> None:
    net, loader = mlp(), batches()
    F = fisher_diagonal(net, loader, likelihood)
    with untouched(net):
        chosen = mask_of(net, 9, loader, likelihood)
    assert int(chosen.sum()) == 9
    assert F[chosen].max() <= F[~chosen].min()


def test_batches_do_not_matter() -> None:
    net, loader = mlp(), batches()
    joined = [(torch.cat([x for x, _ in loader]), torch.zeros(12))]
    assert torch.equal(mask_of(net, 9, loader), mask_of(net, 9, joined))


def test_weights_without_fisher_information_never_fill_it() -> None:
    """A dead unit's weights have the prior's variance, the largest there is,
    and no effect on any output.
    """
    net: Any = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[0].bias[1] = -100.0
    loader = batches()
    dead = fisher_diagonal(net, loader, likelihoods.categorical) == 0
    assert int(dead.sum()) >= 3 + 1 + 2  # the unit's inputs, its bias, and what leaves it
    alive = int((~dead).sum())
    chosen = mask_of(net, alive, loader)
    assert not (chosen & dead).any()
    with pytest.raises(ValueError, match=f"k = {alive + 1} weights asked for, but it must be between 1 and {alive}"):
        largest_variance(net, loader, likelihoods.categorical, alive + 1)


def permuted(net: Any, order: Tensor) -> Any:
    """The same function with its hidden units in another order."""
    other = mlp()
    with torch.no_grad():
        other[0].weight.copy_(net[0].weight[order])
        other[0].bias.copy_(net[0].bias[order])
        other[2].weight.copy_(net[2].weight[:, order])
        other[2].bias.copy_(net[2].bias)
    return other


def test_reordering_hidden_units_reorders_the_choice() -> None:
    net, loader, order = mlp(), batches(), torch.tensor([2, 0, 3, 1])
    values = oracle.unflat(mask_of(net, 9, loader).float(), parameters(net))
    expected = [values["0.weight"][order], values["0.bias"][order], values["2.weight"][:, order], values["2.bias"]]
    other = oracle.unflat(mask_of(permuted(net, order), 9, loader).float(), parameters(net))
    for wanted, found in zip(expected, other.values(), strict=True):
        assert torch.equal(wanted, found)


def test_dict_inputs_and_targets_of_any_kind() -> None:
    net, x = NETS["dict"]()
    assert len(largest_variance(net, [(x, None), (x, None)], likelihoods.categorical, 3)) == 3  # type: ignore[list-item]


def test_learned_scales_are_used_without_gradient() -> None:
    chosen = largest_variance(mlp(), batches(), likelihoods.normal(learned(0.5)), 3)
    assert len(chosen) == 3


def no_fisher(outputs: Tensor) -> dist.TorchDistribution:
    return dist.Normal(outputs, 1.0).to_event(1)


def train_mode() -> nn.Module:
    net = NETS["batch_norm"]()[0]
    return net.train()


REFUSED: dict[str, tuple[Callable[[], nn.Module], Callable[[], Batches], object, str]] = {
    "no fisher": (mlp, batches, no_fisher, r"give it a method fisher\(outputs\) -> \[batch, class, class\]"),
    "empty loader": (mlp, list, likelihoods.categorical, "the loader is empty"),
    "training mode": (train_mode, batches, likelihoods.categorical, "'1' .BatchNorm1d. is in training mode"),
    "latent scale": (mlp, batches, likelihoods.normal(dist.HalfCauchy(1.0)), "has the latent site 'y_scale'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, untouched: Untouched) -> None:
    build, loader, likelihood, message = REFUSED[case]
    net = build()
    with untouched(net), pytest.raises(ValueError, match=message):
        largest_variance(net, loader(), likelihood, 3)  # type: ignore[arg-type]


def test_a_latent_scale_is_not_refused_where_it_is_conditioned() -> None:
    """The conditioned value is the user's choice; what is refused is a draw from the prior."""
    likelihood: Any = likelihoods.normal(dist.HalfCauchy(1.0))
    likelihood.fisher = pyro.condition(likelihood.fisher, data={"y_scale": torch.tensor(0.5)})
    net, loader = mlp(), batches()
    assert torch.equal(mask_of(net, 9, loader, likelihood), mask_of(net, 9, loader, likelihoods.normal(0.5)))


def test_cost_is_limited_to_the_tensors_within() -> None:
    net, loader = mlp(), batches()
    within = named(net, "2")
    chosen = largest_variance(net, loader, likelihoods.categorical, 5, within=within)
    F = fisher_diagonal(net, loader, likelihoods.categorical)[16:]
    flat = oracle.flat({name: torch.zeros_like(v) for name, v in everything(net).take(net).items()})
    start = {"2.weight": 16, "2.bias": 24}
    for name, index in chosen.index.items():
        flat[start[name] + (index if index is not None else torch.arange(within.count(name)))] = 1
    assert torch.equal(F.argsort()[:5].sort().values, flat[16:].nonzero().squeeze(1))
