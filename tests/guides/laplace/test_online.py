"""Prior and noise fitted while the weights are trained: fixed points, monotone rounds, the
untouched network.
"""

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from conftest import Untouched
from laplace_problems import golden, mode
from nets import mlp
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import Diagonal, Full, Kronecker, Laplace, LowRank, train_online
from bayesnn.guides.laplace import distance_to_mode

DESCENT = partial(torch.optim.SGD, lr=0.1)


def quiet(model: BNN, loader: Any, **options: Any) -> Laplace:
    return train_online(model, loader, **{"structure": Full, "optimizer": DESCENT, "progress": False, **options})


def moons(count: int = 60) -> tuple[Tensor, Tensor]:
    angle = torch.rand(count) * torch.pi
    side = torch.arange(count) % 2
    x = torch.stack([angle.cos() + side, (1 - 2 * side) * (angle.sin() - 0.3 * side)], 1) + 0.15 * torch.randn(count, 2)
    return x.double(), side


@pytest.mark.parametrize(("size", "start"), [(None, 0.1), (3, 30.0)])
def test_mackays_fixed_point(size: int | None, start: float) -> None:
    model, x, y = golden(start)
    model = BNN(model.net, model.subset, model.prior, model.likelihood, size=size)
    guide = quiet(model, [(x, y)], epochs=200, every_epochs=10, per="network")
    assert guide.fitted.prior_precision[0].item() == pytest.approx(2.0188583155, rel=1e-6)
    assert distance_to_mode(guide, [(x, y)]).deviations < 1e-5


class Counted:
    """A loader that notes the passes over it."""

    def __init__(self, data: list[tuple[Tensor, Tensor]]) -> None:
        self.data, self.events = data, []

    def __iter__(self) -> Any:
        self.events.append("pass")  # when the first batch is asked for
        yield from self.data


@pytest.mark.parametrize(("burn_in", "rounds"), [(0, [4, 8, 11]), (2, [2, 6, 10, 11]), (11, [11])])
def test_rounds_come_where_they_should(burn_in: int, rounds: list[int]) -> None:
    """After the burn-in, every four epochs, and after the last."""
    model, x, y = golden(0.1)
    model = BNN(model.net, model.subset, model.prior, model.likelihood, size=len(y))
    loader, evidences = Counted([(x, y)]), []

    def note(guide: Laplace) -> None:
        loader.events.append("round")
        evidences.append(float(guide.log_evidence()))

    best = quiet(model, loader, epochs=11, every_epochs=4, burn_in=burn_in, per="network", after_round=note)
    # one for the curvature
    passes = [part.count("pass") - 1 for part in " ".join(loader.events).split("round")[:-1]]
    assert passes == [b - a for a, b in itertools.pairwise([0, *rounds])]
    assert len(evidences) == len(rounds)
    assert float(best.log_evidence()) == max(evidences)


def test_the_fixed_point_with_noise() -> None:
    x = torch.randn(30, 2, dtype=torch.double)
    y = x @ torch.tensor([[1.0], [-0.5]]).double() + 0.2 * torch.randn(30, 1).double()
    model, _, _ = golden(1.0)
    guide = quiet(
        model, [(x, y)], epochs=300, every_epochs=10, per="network", fit_noise=True, optimizer=partial(DESCENT, lr=0.02)
    )
    exact = model
    for _ in range(40):
        exact = Laplace(exact, mode(exact, x, y, steps=2)).fit([(x, y)]).maximise_evidence(fit_noise=True).model
    assert guide.model.likelihood.scale == pytest.approx(exact.likelihood.scale, rel=1e-5)
    expected = Laplace(exact, mode(exact, x, y)).fit([(x, y)])
    torch.testing.assert_close(guide.fitted.prior_precision, expected.fitted.prior_precision, rtol=1e-4, atol=0)
    torch.testing.assert_close(guide.log_evidence(), expected.log_evidence(), rtol=1e-6, atol=0)


def test_batches_weigh_the_prior_once_an_epoch() -> None:
    """With a step size that falls to zero, batches of several sizes find the mode of all data."""
    model, _, _ = golden(2.0)
    x = torch.randn(24, 2, dtype=torch.double)
    y = x @ torch.tensor([[1.0], [-0.5]]).double() + torch.randn(24, 1).double()
    loader = list(zip(x.split(8), y.split(8), strict=True))
    schedule = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + 0.05 * step))
    # each example counts twice
    halves = BNN(model.net, model.subset, model.prior, model.likelihood, size=48)
    guide = quiet(halves, loader, epochs=300, every_epochs=100, schedule=schedule, per="network")
    assert distance_to_mode(guide, loader).deviations < 0.02


@pytest.mark.parametrize("structure", [Full, Kronecker, Diagonal, partial(LowRank, rank=10)], ids=str)
def test_classification(structure: Any, untouched: Untouched) -> None:
    """The evidence rises, and no longer falls when weights and scales have converged."""
    x, y = moons()
    net = mlp(2, 8, 2).double()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical)
    rounds: list[float] = []
    with untouched(net):
        guide = quiet(
            model,
            [(x, y)],
            epochs=240,
            every_epochs=20,
            burn_in=20,
            structure=structure,
            optimizer=partial(torch.optim.Adam, lr=0.05),
            after_round=lambda one: rounds.append(float(one.log_evidence())),
        )
    assert len(rounds) == 12
    assert guide.log_evidence().item() == max(rounds)
    assert rounds[-1] > rounds[0]
    assert all(after > before - 0.1 for before, after in zip(rounds[-4:], rounds[-3:], strict=False))
    values = dict(zip(model.sites, guide.loc.split([p.numel() for p in net.parameters()]), strict=True))
    again = Laplace(guide.model, {n: v.reshape(model.sites[n]) for n, v in values.items()}, structure=structure)
    torch.testing.assert_close(again.fit([(x, y)]).log_evidence(), guide.log_evidence(), rtol=1e-6, atol=1e-6)


def test_a_shuffled_loader_a_start_and_a_learned_scale() -> None:
    x, y = moons()
    net = mlp(2, 4, 1).double()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(learned(0.3)), size=60)
    loader = DataLoader(TensorDataset(x, y.double().unsqueeze(1)), batch_size=16, shuffle=True)
    start = {site: value + 0.1 for site, value in model.values().items()}
    turned = dict(reversed(start.items()))
    guide = quiet(model, loader, epochs=3, every_epochs=2, start=turned, optimizer=partial(torch.optim.SGD, lr=0.0))
    torch.testing.assert_close(guide.loc, torch.cat([value.flatten() for value in start.values()]))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_refused() -> None:
    model, x, y = golden()
    for name, value, said in [
        ("epochs", 0, "at least 1, not 0"),
        ("burn_in", -1, "at least 0"),
        ("every_epochs", 0.5, "every_epochs"),
    ]:
        with pytest.raises(ValueError, match=said):
            quiet(model, [(x, y)], **{"epochs": 2, name: value})
    with pytest.raises(ValueError, match="a burn-in of 5 epochs is more than all 2"):
        quiet(model, [(x, y)], epochs=2, burn_in=5)
    with pytest.raises(TypeError, match="a generator can be read only once; give a DataLoader"):
        quiet(model, (batch for batch in [(x, y)]), epochs=2)
    with pytest.raises(ValueError, match="the mode has no value for 'weight'"):
        quiet(model, [(x, y)], epochs=2, start={})
    with pytest.raises(FloatingPointError, match="outputs are not finite; lower the learning rate"):
        quiet(model, [(x, y)], epochs=50, every_epochs=50, optimizer=partial(torch.optim.SGD, lr=1e40))


def test_an_evidence_without_maximum_says_in_which_round() -> None:
    model, x, _ = golden()
    nothing = torch.zeros(3, 1).double()
    start = {"weight": torch.zeros(1, 2).double()}
    with pytest.raises(ValueError, match="grows without end") as caught:
        quiet(model, [(x, nothing)], epochs=1, per="network", start=start)
    assert "in the round after epoch 1; a longer burn_in may help" in caught.value.__notes__[0]
