"""`fit`: what is trained, by which optimiser, when it stops, and what it refuses."""

import random
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from bayesnn.fit import History, fit

quiet = partial(fit, progress=False)
SGD = partial(torch.optim.SGD, lr=0.1)


class Line(nn.Module):
    """Mean squared error of a linear map; two parameters of different kinds."""

    def __init__(self, features=3):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x, y):
        return (((x @ self.weight - y) / self.log_scale.exp()) ** 2 / 2).mean() + self.log_scale


class Constant(nn.Module):
    """A loss that is linear in its parameter, so that the gradient is known: the batch's mean."""

    def __init__(self, shape=()):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        return (self.at * x).sum(-1).mean() if self.at.dim() else self.at * x.mean()


class Regression(pyro.nn.PyroModule):
    """y ~ N(net(x) w, scale): a user's network of fixed features, held in a
    tuple, under a random last layer.
    """

    def __init__(self, net, size=None):
        super().__init__()
        self.nets, self.size = (net,), size
        self.log_scale = nn.Parameter(torch.ones(()))

    def forward(self, x, y=None):
        features = self.nets[0](x)
        w = pyro.sample("w", dist.Normal(torch.zeros(features.shape[-1]), 1.0).to_event(1))
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=(self.size or len(x)) / len(x)):
            return pyro.sample("y", dist.Normal(features @ w, self.log_scale.exp()), obs=y)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    pyro.clear_param_store()


@pytest.fixture
def data():
    x = torch.randn(24, 3)
    return TensorDataset(x, x @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.randn(24))


def elbo(data, guide=AutoNormal, size=24):
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    nn.init.orthogonal_(net[0].weight, gain=2.0)
    model = Regression(net, size)
    return Trace_ELBO()(model, guide(model)), net


# --- the loop ------------------------------------------------------------------------------------


def test_equals_a_loop_written_by_hand(data):
    loader = DataLoader(data, batch_size=7)
    ours, theirs = Line(), Line()
    history = quiet(ours, loader, epochs=3, optimizer=SGD)
    optimizer, means = torch.optim.SGD(theirs.parameters(), lr=0.1), []
    for _ in range(3):
        losses = []
        for batch in loader:
            optimizer.zero_grad()
            value = theirs(*batch)
            value.backward()
            optimizer.step()
            losses.append(value.item())
        means.append(sum(losses) / len(losses))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert history == History(means, [], 3, 12, "epochs", None)


def test_default_optimizer_is_adam_at_a_thousandth():
    loss = Constant()
    quiet(loss, [torch.ones(2)], epochs=1)
    assert loss.at.item() == pytest.approx(-1e-3, rel=1e-4)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("guide", [AutoNormal, AutoDelta])
def test_trains_guide_and_model_but_not_the_users_network(data, guide, local):
    with pyro.settings.context(module_local_params=local):
        loss, net = elbo(data, guide)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        x, y = data.tensors
        adam = partial(torch.optim.Adam, lr=0.05)
        settle = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.995)
        history = quiet(loss, DataLoader(data, batch_size=8), epochs=200, optimizer=adam, schedule=settle)
        design = net(x).detach()
        noise = loss.model.log_scale.exp().item() ** 2
        exact = torch.linalg.solve(design.T @ design / noise + torch.eye(4), design.T @ y / noise)
        centre = loss.guide.median()["w"].detach()
    assert history.loss[-1] < history.loss[0] - 10
    # from 1: the learned scale of the likelihood moved as well
    assert loss.model.log_scale.item() < 0.5
    # the conjugate posterior's mean function
    assert ((design @ (centre - exact)) ** 2).mean().sqrt() < 0.05
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_parameters_of_others_get_no_gradient():
    other = nn.Parameter(torch.ones(()))
    loss = Constant()
    loss.forward = lambda x: loss.at * other * x.mean()
    quiet(loss, [torch.ones(2)], epochs=1)
    assert other.grad is None
    assert loss.at.item() != 0


@pytest.mark.parametrize(
    ("batch", "seen"),
    [
        (torch.ones(2), "one"),
        ({"x": torch.ones(2), "y": (torch.ones(2), "text")}, "dict"),
        ([torch.ones(2), {"a": torch.ones(1)}], "two"),
    ],
)
def test_batches_reach_the_loss_on_its_device(batch, seen):
    calls = []

    class Meta(nn.Module):
        def __init__(self):
            super().__init__()
            self.at = nn.Parameter(torch.zeros(()))

        def forward(self, *batch):
            calls.append(batch)
            return self.at**2

    quiet(Meta(), [batch], epochs=1)
    assert len(calls) == 2  # the warm-up, then the step
    assert len(calls[0]) == (2 if seen == "two" else 1)
    assert type(calls[0][0]) is type(batch[0] if seen == "two" else batch)


def test_moves_nested_batches():
    from typing import NamedTuple

    from bayesnn.fit.batches import move

    class Pair(NamedTuple):
        x: torch.Tensor
        y: dict

    moved = move([Pair(torch.ones(2), {"a": (torch.ones(1), "text", 3)})], torch.device("meta"))
    assert moved[0].x.is_meta
    assert moved[0].y["a"][0].is_meta
    assert moved[0].y["a"][1:] == ("text", 3)


def test_device_of_a_lazy_guide_is_that_of_the_models_network():
    from bayesnn.fit.batches import device_of

    loss = nn.Module()
    loss.model = nn.Module()
    assert device_of(loss) is None
    loss.model.__dict__["net"] = nn.Linear(1, 1, device="meta")
    assert device_of(loss) == torch.device("meta")


# --- optimiser, schedule, clipping ---------------------------------------------------------------


def test_groups_merge_parameters_with_equal_options(data):
    made = []

    def factory(groups):
        made.extend(groups)
        return torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)

    def groups(name, parameter):
        return {"lr": 1e-2, "weight_decay": 0.0} if name.endswith("log_scale") else {}

    loss, _ = elbo(data)
    quiet(loss, DataLoader(data, batch_size=8), epochs=1, optimizer=factory, groups=groups)
    sizes = {(options["lr"], options["weight_decay"]): len(options["params"]) for options in made}
    # the model's scale; the guide's location and scale
    assert sizes == {(1e-2, 0.0): 1, (1e-3, 0.1): 2}
    assert made[0]["params"][0] is loss.model.log_scale


def test_groups_change_the_step():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.slow, self.fast = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return (self.slow + self.fast) * x.mean()

    loss = Two()
    quiet(loss, [torch.ones(1)], epochs=1, optimizer=SGD, groups=lambda name, p: {"lr": 1.0} if name == "fast" else {})
    assert (loss.slow.item(), loss.fast.item()) == (pytest.approx(-0.1), pytest.approx(-1.0))


def test_schedule_steps_after_each_optimiser_step():
    loss = Constant()
    halve = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    quiet(loss, [torch.ones(1)] * 2, epochs=2, optimizer=partial(torch.optim.SGD, lr=1.0), schedule=halve)
    assert loss.at.item() == -(1 + 0.5 + 0.25 + 0.125)


def test_clip_bounds_the_whole_gradients_norm():
    short, long = Constant((2,)), Constant((2,))
    quiet(short, [torch.tensor([[0.3, 0.4]])], epochs=1, clip=1.0, optimizer=SGD)
    quiet(long, [torch.tensor([[30.0, 40.0]])], epochs=1, clip=1.0, optimizer=SGD)
    torch.testing.assert_close(short.at.data, torch.tensor([-0.03, -0.04]))
    torch.testing.assert_close(long.at.data, torch.tensor([-0.06, -0.08]))


# --- validation and early stopping ---------------------------------------------------------------


def test_patience_stops_and_restores_the_best_epoch():
    loss, values = Constant(), iter([3.0, 1.0, 2.0, 1.5, 0.0])
    history = quiet(loss, [torch.ones(1)], epochs=9, optimizer=SGD, validate=lambda: next(values), patience=2)
    assert history.validation == [3.0, 1.0, 2.0, 1.5]
    assert (history.epochs, history.best_epoch, history.stopped) == (4, 1, "patience")
    assert loss.at.item() == pytest.approx(-0.2)  # two steps, not four


def test_patience_counts_from_the_best_epoch():
    values = iter([3.0, 4.0, 1.0, 2.0, 3.0, 0.0])
    history = quiet(Constant(), [torch.ones(1)], epochs=9, validate=lambda: next(values), patience=2)
    assert (history.epochs, history.best_epoch) == (5, 2)


def test_the_best_epoch_is_restored_where_all_epochs_ran():
    loss, values = Constant(), iter([1.0, 2.0])
    history = quiet(loss, [torch.ones(1)], epochs=2, optimizer=SGD, validate=lambda: next(values), patience=5)
    assert history.stopped == "epochs"
    assert loss.at.item() == pytest.approx(-0.1)


def test_without_patience_validation_is_only_recorded():
    loss, values = Constant(), iter([1.0, 2.0])
    history = quiet(loss, [torch.ones(1)], epochs=2, optimizer=SGD, validate=lambda: torch.tensor(next(values)))
    assert history.validation == [1.0, 2.0]
    assert loss.at.item() == pytest.approx(-0.2)


def test_validation_sees_the_same_noise_each_time():
    history = quiet(Constant(), [torch.ones(1)], epochs=3, validate=lambda: torch.randn(()) + random.random())
    assert len(set(history.validation)) == 1


# --- randomness ----------------------------------------------------------------------------------


class Drawing(nn.Module):
    """A loss whose gradient is noise, from all three generators; with a
    parameter made at the first call.
    """

    def forward(self, x):
        if not hasattr(self, "at"):
            self.at = nn.Parameter(torch.randn(()))
        return self.at * (torch.randn(()) + random.gauss(0, 1) + np.random.normal())  # noqa: NPY002


def seed_all():
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002


def draws():
    return torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002


def test_the_loss_takes_nothing_from_the_loaders_stream():
    seen = {}
    for loss in (Constant(), Drawing()):
        own = torch.Generator().manual_seed(3)
        loader = DataLoader(torch.arange(12.0), batch_size=3, shuffle=True, generator=own)
        order = []
        loader.collate_fn = lambda batch, order=order: order.append(batch) or torch.stack([*batch])
        seed_all()
        quiet(loss, loader, epochs=2)
        # the first is the warm-up's
        seen[type(loss)] = order[1:], draws(), own.get_state().tolist()
    assert seen[Constant] == seen[Drawing]
    assert seen[Drawing][0][0] == order[0]  # the warm-up's batch comes again


@pytest.mark.parametrize("draw", [lambda: torch.rand(()).item(), random.random, np.random.rand])
def test_noise_differs_from_step_to_step_and_from_fit_to_fit(draw):
    loss, seen = Constant(), []
    loss.forward = lambda x: seen.append(draw()) or loss.at * x.mean()
    for _ in range(2):
        quiet(loss, [torch.ones(1)] * 3, epochs=2)
    noise = seen[1:7] + seen[8:]  # without the warm-ups
    assert len(set(noise)) == 12


def test_a_warm_up_leaves_buffers_as_they_were():
    class Counting(Constant):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    loss = Counting()
    quiet(loss, [torch.ones(1)] * 3, epochs=2)
    assert loss.calls == 6


# --- progress ------------------------------------------------------------------------------------


def test_progress_goes_to_stderr_and_can_be_switched_off(capsys, monkeypatch):
    quiet(Constant(), [torch.ones(1)] * 4, epochs=2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("bayesnn.functional.progress.DELAY", 0.0)
    fit(Constant(), [torch.ones(1)] * 4, epochs=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "8/8" in err


def test_a_loader_without_length(data):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from torch.ones(5, 1)

    assert quiet(Constant(), DataLoader(Stream(), batch_size=2), epochs=2).steps == 6
