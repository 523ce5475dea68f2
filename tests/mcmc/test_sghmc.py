"""Stochastic-gradient Markov chains where their stationary distribution is known."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pytest
import torch
from conftest import Untouched
from nets import mlp
from pyro import distributions as dist
from statistical import assert_mean
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.mcmc import sghmc
from bayesnn.predict import predict

N, SCALE = 2_000, 0.5
X, Y = torch.zeros(4, N), torch.zeros(4, 1)


def independent() -> BNN:
    """The data say nothing of 2,000 weights: the posterior is N(0, SCALE^2), and every weight a
    chain of its own.
    """
    net = nn.Linear(N, 1, bias=False)
    with torch.no_grad():
        net.weight.zero_()
    return BNN(net, subset.everything(net), priors.normal(SCALE), likelihoods.normal(1.0), size=8)


def moments(steps: int, step: float, friction: float, explore: float, temperature: float) -> float:
    """E[w^2] after one cycle, exactly: the recursion of the covariance of (w,
    p) in a quadratic potential.
    """
    h, covariance = SCALE**-2, torch.zeros(2, 2, dtype=torch.double)
    for k in range(steps):
        e = step / 2 * (math.cos(math.pi * k / steps) + 1)
        noise = 2 * friction * temperature if k >= math.ceil(explore * steps) else 0.0
        root, keep = math.sqrt(e), 1 - friction
        move = torch.tensor([[1 - e * h, root * keep], [-root * h, keep]], dtype=torch.double)
        kick = torch.tensor([root, 1.0], dtype=torch.double)
        covariance = move @ covariance @ move.T + noise * torch.outer(kick, kick)
    return float(covariance[0, 0])


@pytest.mark.parametrize("friction", [1.0, 0.1])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_walk_has_the_variance_of_its_recursion(friction: float, temperature: float) -> None:
    """Of the discretised chain, exactly; and that is the posterior's, up to the
    bias of its steps.
    """
    generator = torch.Generator().manual_seed(0)
    held = sghmc(
        independent(), [(X, Y)] * 2, epochs=75, step=0.05, cycles=1, draws=1, friction=friction, explore=0.1,
        temperature=temperature, generator=generator, progress=False,
    )["weight"]  # fmt: skip
    assert held.shape == (1, 1, N)
    exact = moments(150, 0.05, friction, 0.1, temperature)
    assert_mean(held.flatten().square(), exact)
    assert exact == pytest.approx(temperature * SCALE**2, rel=0.1)


@pytest.mark.filterwarnings("ignore:sghmc. the model's size is 6, but the loader has 2:UserWarning")
@pytest.mark.parametrize("size", [6, 3, 2])
def test_a_batch_counts_for_all_data(size: int) -> None:
    """Without noise and with full friction one step goes along the gradient of
    the batch, repeated.
    """
    net = nn.Linear(2, 1)
    x, y = torch.randn(size, 2), torch.randn(size, 1)
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0), size=6)
    found = sghmc(
        model, [(x, y)], epochs=1, step=1e-3, draws=1, friction=1.0, explore=0.0, temperature=0.0, progress=False
    )
    whole = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    leaves = {site: value.requires_grad_() for site, value in model.values().items()}
    conditioned = pyro.poutine.condition(whole, leaves)
    joint = pyro.poutine.trace(conditioned).get_trace(x.repeat(6 // size, 1), y.repeat(6 // size, 1)).log_prob_sum()
    for site, gradient in zip(leaves, torch.autograd.grad(joint, list(leaves.values())), strict=True):
        torch.testing.assert_close(found[site][0], (leaves[site] + 1e-3 * gradient).detach())


def test_draws_are_what_predict_takes(untouched: Untouched) -> None:
    net = mlp()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=12)
    data = [(torch.randn(6, 3), torch.randint(0, 2, (6,))) for _ in range(2)]
    with untouched(net):
        held = sghmc(model, data, epochs=6, step=1e-3, cycles=3, draws=2, progress=False)
    assert {site: value.shape[0] for site, value in held.items()} == dict.fromkeys(model.sites, 6)
    assert predict(held, data[0][0], 6, model=model).shape == (6, 6, 2)


def test_a_users_own_model_and_a_start() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(x @ loc, 1.0), obs=y)

    start = {"loc": torch.tensor([1.0, -1.0])}
    held = sghmc(
        model, [(torch.randn(5, 2), torch.randn(5))], epochs=4, step=1e-9, draws=2, start=start, progress=False
    )
    torch.testing.assert_close(held["loc"][0], start["loc"], rtol=0, atol=1e-3)
    assert not torch.equal(held["loc"][0], held["loc"][1])


def constrained(x: Tensor, y: Tensor) -> None:
    scale = pyro.sample("scale", dist.HalfCauchy(1.0))
    pyro.sample("y", dist.Normal(x, scale).to_event(1), obs=y)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "epochs": ({"epochs": 0}, "epochs must be at least 1, not 0"),
    "step": ({"step": 0.0}, "step > 0, friction in"),
    "friction": ({"friction": 1.5}, "friction in"),
    "draws": ({"draws": 50}, "a cycle has 4 steps, of which 2 sample, but 50 draws are wanted"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_bad_options(kind: str) -> None:
    changed, message = REFUSED[kind]
    options = {"epochs": 4, "step": 0.01, "draws": 1, "progress": False, **changed}
    with pytest.raises(ValueError, match=message):
        sghmc(independent(), [(X, Y)], **options)


def test_what_it_cannot_walk_on() -> None:
    with pytest.raises(ValueError, match="the latent site 'scale' is not a real number without bounds"):
        sghmc(constrained, [(torch.zeros(3), torch.zeros(3))], epochs=4, step=0.1, draws=1, progress=False)
    with pytest.raises(ValueError, match="the loader is empty"):
        sghmc(independent(), [], epochs=4, step=0.1, progress=False)
    with pytest.raises(FloatingPointError, match="smaller step"):
        sghmc(independent(), [(X, Y)], epochs=400, step=1e6, draws=1, progress=False)


class Endless:
    """Batches without a length, for ever."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield torch.zeros(2, 3), torch.zeros(2, 1)


class Counted:
    """Three batches of two examples, without a length, that can be read again and again."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from [(torch.zeros(2, 3), torch.zeros(2, 1)) for _ in range(3)]


def sized(size: int | None) -> BNN:
    net = nn.Linear(3, 1)
    return BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0), size=size)


PAIRS = TensorDataset(torch.zeros(6, 3), torch.zeros(6, 1))
FAULTY: dict[str, tuple[Callable[[], Any], int | None, str]] = {
    "no size": (lambda: DataLoader(PAIRS, 2), None, "size=None.*several batches.*size=6"),
    "no size, a list": (lambda: list(DataLoader(PAIRS, 2)), None, "size=None.*several batches.*size=6"),
    "no size, no length": (Counted, None, "size=None.*several batches.*number of training examples"),
    "small": (lambda: DataLoader(PAIRS, 2), 5, "size is 5, but the loader has 6 training examples.*size=6"),
    "small, no length": (Counted, 5, "size is 5, but the loader has given 6 training examples in one epoch"),
    "endless": (Endless, 40, "size is 40, but the loader has given 42 training examples.*endless loader"),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_a_size_that_the_loader_contradicts(kind: str) -> None:
    loader, size, message = FAULTY[kind]
    with pytest.raises(ValueError, match=f"sghmc: .*{message}"):
        sghmc(sized(size), loader(), epochs=4, step=0.01, draws=1, progress=False)


def test_loaders_that_fit_the_size() -> None:
    assert sghmc(sized(None), DataLoader(PAIRS, 6), epochs=4, step=1e-3, draws=1, progress=False)
    for batches in (Counted(), DataLoader(PAIRS, 2)):
        held = sghmc(sized(6), batches, epochs=4, step=1e-3, draws=3, progress=False)
        assert held["weight"].shape == (3, 1, 3)  # of the last 6 of 12 steps


def test_an_iterator_is_refused() -> None:
    with pytest.raises(TypeError, match=r"sghmc: the loader is an iterator.*give a DataLoader"):
        sghmc(sized(6), itertools.cycle(Counted()), epochs=4, step=1e-3, draws=1, progress=False)
