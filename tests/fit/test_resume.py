"""A run that was interrupted and resumed equals the uninterrupted one, bit for bit.

Run as a script, this file is the process that a test kills:
`test_fit_resume.py PATH WORKERS STEP SIGNAL`.
"""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from bayesnn.fit import fit

# Python >= 3.12 warns when a process with threads forks, as a DataLoader with workers does after
# any use of OpenMP.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

quiet = partial(fit, progress=False)


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Python's own handler: a suite that was started in the background inherits
    a Ctrl-C that is ignored.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Augmented(Dataset):
    """Numbers with noise of all three global generators and of one of its own."""

    def __init__(self, generator=None):
        self.generator = generator

    def __len__(self):
        return 20

    def __getitem__(self, index):
        own = torch.rand((), generator=self.generator) if self.generator else 0.0
        return index + torch.randn(2) + random.gauss(0, 1) + np.random.normal() + own  # noqa: NPY002


class Noisy(nn.Module):
    """A loss with noise of all three generators, a buffer that it moves and a lazy parameter;
    first it calls `at`.
    """

    def __init__(self, at=lambda call: None):
        super().__init__()
        self.at, self.calls = at, -1  # the warm-up is no step
        self.body = nn.LazyLinear(3)
        self.register_buffer("average", torch.zeros(2))

    def forward(self, x):
        self.calls += 1
        self.at(self.calls)
        self.average.lerp_(x.mean(0), 0.1)
        noise = torch.randn(()) + random.random() + np.random.rand()  # noqa: NPY002
        return ((self.body(x - self.average) - noise) ** 2).mean()


def distance(loss):
    """A validation that is best after the second of three epochs: with noise,
    and of the loss's state alone.
    """
    return float((loss.average.sum() - 13).abs() + 0.01 * torch.randn(()) + 0.01 * random.random())


def train(loss, checkpoint=None, *, workers=0, epochs=3, loader=None, seed=0, **options):
    """5 batches an epoch, with everything that has a state: Adam, a schedule, clipping,
    validation, patience.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if loader is None:
        loader = DataLoader(Augmented(), batch_size=4, shuffle=True, num_workers=workers)
    given = {
        "optimizer": partial(torch.optim.Adam, lr=0.03),
        "schedule": partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9),
        "clip": 1.0,
        "validate": partial(distance, loss),
        "patience": 5,
        "every": 3,
    }
    return quiet(loss, loader, epochs=epochs, checkpoint=checkpoint, **{**given, **options})


resume = partial(train, seed=99)  # another random state: what follows comes from the checkpoint


def after(loss, history):
    """What must be equal: parameters, buffers, history, and what the global
    generators give next.
    """
    state = {name: value.tolist() for name, value in loss.state_dict().items()}
    return state, history, torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted():
    """The whole run without a checkpoint, by number of workers."""
    found = {}
    for workers in (0, 2):
        loss = Noisy()
        found[workers] = after(loss, train(loss, workers=workers))
        assert found[workers][1].best_epoch == 1
    assert found[0] != found[2]  # the workers' augmentation is another
    return found


def stop_at(step, how):
    def at(call):
        if call == step:
            how()

    return at


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def test_a_checkpoint_changes_nothing(tmp_path, uninterrupted):
    loss = Noisy()
    assert after(loss, train(loss, tmp_path / "run.pt")) == uninterrupted[0]


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (5, 0), (7, 0), (7, 2)])
def test_ctrl_c_in_a_step_waits_for_its_end_and_resumes(tmp_path, uninterrupted, step, workers):
    path = tmp_path / "new" / "run.pt"
    first = Noisy(stop_at(step, ctrl_c))
    with pytest.raises(KeyboardInterrupt) as caught:
        train(first, path, workers=workers)
    assert f"stopped after step {step} " in caught.value.__notes__[0]
    assert f"{path} holds the run; call fit again with the same arguments" in caught.value.__notes__[0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    second = Noisy()
    assert after(second, resume(second, path, workers=workers)) == uninterrupted[workers]
    assert second.calls == 15 - step  # nothing was trained twice


def test_ctrl_c_while_a_batch_is_made(tmp_path, uninterrupted, monkeypatch):
    calls = Counter()
    original = Augmented.__getitem__

    def interrupted(self, index):
        calls["made"] += 1
        if calls["made"] == 4 + 4 * 8 + 2:  # the warm-up's batch, eight more, half a batch
            ctrl_c()
        return original(self, index)

    monkeypatch.setattr(Augmented, "__getitem__", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(Noisy(), tmp_path / "run.pt")
    assert "stopped after step 8 (batch 3 of epoch 2)" in caught.value.__notes__[0]
    loss = Noisy()
    assert after(loss, resume(loss, tmp_path / "run.pt")) == uninterrupted[0]


def test_ctrl_c_in_the_validation(tmp_path, uninterrupted):
    loss, calls = Noisy(), Counter()

    def validate():
        calls["made"] += 1
        if calls["made"] == 2:
            torch.randn(3), random.random()
            ctrl_c()
        return distance(loss)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(loss, tmp_path / "run.pt", validate=validate)
    assert "stopped after step 10 (batch 5 of epoch 2)" in caught.value.__notes__[0]
    loss = Noisy()
    assert after(loss, resume(loss, tmp_path / "run.pt")) == uninterrupted[0]
    assert loss.calls == 5


def test_interrupted_at_every_step(tmp_path, uninterrupted):
    for _ in range(15):
        with pytest.raises(KeyboardInterrupt):
            train(Noisy(stop_at(1, ctrl_c)), tmp_path / "run.pt")
    loss = Noisy()
    assert after(loss, resume(loss, tmp_path / "run.pt")) == uninterrupted[0]
    assert loss.calls == 0  # the last epoch's end was all that was left


def test_a_second_ctrl_c_gets_through_at_once(tmp_path, uninterrupted):
    def twice():
        ctrl_c()
        ctrl_c()
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt) as caught:
        train(Noisy(stop_at(8, twice)), tmp_path / "run.pt")
    assert "stopped after step 7 " in caught.value.__notes__[0]
    loss = Noisy()
    assert after(loss, resume(loss, tmp_path / "run.pt")) == uninterrupted[0]


def test_stopped_in_the_middle_of_an_update_the_last_checkpoint_stays(tmp_path, uninterrupted):
    class Torn(torch.optim.Adam):
        def step(self, closure=None):
            super().step(closure)
            if self.state_dict()["state"][0]["step"] == 8:
                raise KeyboardInterrupt

    Torn.__name__ = "Adam"  # the run is resumed with the sound one
    with pytest.raises(KeyboardInterrupt) as caught:
        train(Noisy(), tmp_path / "run.pt", optimizer=partial(Torn, lr=0.03))
    assert "middle of an update" in caught.value.__notes__[0]
    loss = Noisy()
    assert after(loss, resume(loss, tmp_path / "run.pt")) == uninterrupted[0]
    assert loss.calls == 9  # from step 6, the last interval


def test_without_a_checkpoint_the_note_says_what_is_left():
    with pytest.raises(KeyboardInterrupt) as caught:
        train(Noisy(stop_at(2, ctrl_c)))
    assert "after step 2 " in caught.value.__notes__[0]
    assert "with checkpoint= the run could go on" in caught.value.__notes__[0]


def run_as_process(path, workers, step, number):
    command = [sys.executable, __file__, str(path), str(workers), str(step), str(int(number))]
    # a pipe would wait for the orphaned workers' end
    with open(path.with_suffix(".stderr"), "w") as errors:
        return subprocess.run(command, timeout=120, check=False, start_new_session=True, stderr=errors).returncode


@pytest.mark.parametrize("workers", [0, 2])
def test_killed(tmp_path, uninterrupted, workers):
    path = tmp_path / "run.pt"
    assert run_as_process(path, workers, 8, signal.SIGKILL) == -signal.SIGKILL
    assert torch.load(path, weights_only=True)["run"]["steps"] == 6
    loss = Noisy()
    assert after(loss, resume(loss, path, workers=workers)) == uninterrupted[workers]
    assert loss.calls == 9


def test_ctrl_c_in_a_terminal_reaches_the_workers_as_well(tmp_path, uninterrupted):
    path = tmp_path / "run.pt"
    assert run_as_process(path, 2, 8, signal.SIGINT) not in (0, -signal.SIGKILL)
    errors = path.with_suffix(".stderr").read_text()
    assert "KeyboardInterrupt" in errors
    assert f"{path} holds the run; call fit again with the same arguments" in errors
    loss = Noisy()
    assert after(loss, resume(loss, path, workers=2)) == uninterrupted[2]
    assert loss.calls == 7


@pytest.mark.parametrize("name", ["loader", "sampler", "dataset"])
def test_generators_of_loader_sampler_and_data_set_are_kept(tmp_path, name):
    def loader(seed):
        own = torch.Generator().manual_seed(seed)
        data = Augmented(own if name == "dataset" else None)
        if name == "sampler":
            return DataLoader(data, batch_size=4, sampler=RandomSampler(data, generator=own))
        return DataLoader(data, batch_size=4, shuffle=True, generator=own if name == "loader" else None)

    whole, path = Noisy(), tmp_path / "run.pt"
    expected = after(whole, train(whole, loader=loader(1)))
    other = Noisy()
    assert after(other, train(other, loader=loader(2))) != expected
    with pytest.raises(KeyboardInterrupt):
        train(Noisy(stop_at(8, ctrl_c)), path, loader=loader(1))
    loss = Noisy()
    assert after(loss, resume(loss, path, loader=loader(2))) == expected


def test_a_sampler_that_draws_in_mid_epoch(tmp_path):
    class Choosy:
        def __iter__(self):
            for _ in range(5):
                yield [random.randrange(20), int(torch.randint(20, ()))]

        def __len__(self):
            return 5

    loader = partial(DataLoader, Augmented(), batch_sampler=Choosy())
    whole, path = Noisy(), tmp_path / "run.pt"
    expected = after(whole, train(whole, loader=loader()))
    with pytest.raises(KeyboardInterrupt):
        train(Noisy(stop_at(8, ctrl_c)), path, loader=loader())
    loss = Noisy()
    assert after(loss, resume(loss, path, loader=loader())) == expected


@pytest.mark.parametrize("local", [True, False])
def test_a_pyro_elbo(tmp_path, local):
    def model(x):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", 20, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def run(checkpoint=None, at=lambda call: None):
        pyro.clear_param_store()
        guide, calls = AutoNormal(model), Counter()

        def counted(x):
            calls["made"] += 1
            at(calls["made"] - 3)  # the guide's set-up and the warm-up each call it
            return model(x)

        loss = Trace_ELBO()(counted, guide)
        history = train(loss, checkpoint, validate=None, patience=None)
        return {name: value.tolist() for name, value in loss.state_dict().items()}, history

    with pyro.settings.context(module_local_params=local):
        expected = run()
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run.pt", stop_at(7, ctrl_c))
        assert run(tmp_path / "run.pt") == expected


# --- finished runs -------------------------------------------------------------------------------


def test_a_finished_run_returns_its_history(tmp_path, uninterrupted):
    train(Noisy(), tmp_path / "run.pt")
    loss = Noisy()
    history = resume(loss, tmp_path / "run.pt")
    assert loss.calls == 0  # only the warm-up
    assert ({name: value.tolist() for name, value in loss.state_dict().items()}, history) == uninterrupted[0][:2]


@pytest.mark.parametrize("epochs", [1, 2])
def test_more_epochs_train_on_from_the_last_parameters(tmp_path, uninterrupted, epochs):
    first = Noisy()
    assert train(first, tmp_path / "run.pt", epochs=epochs, patience=1).epochs == epochs
    loss = Noisy()
    assert after(loss, resume(loss, tmp_path / "run.pt")) == uninterrupted[0]


def test_a_run_out_of_patience_is_finished_until_it_gets_more(tmp_path):
    values = iter([1.0, 2.0, 3.0])
    first = train(Noisy(), tmp_path / "run.pt", validate=lambda: next(values), patience=1)
    assert (first.epochs, first.stopped) == (2, "patience")
    assert resume(Noisy(), tmp_path / "run.pt", validate=lambda: next(values), patience=1) == first
    more = resume(Noisy(), tmp_path / "run.pt", validate=lambda: next(values), patience=2)
    assert (more.epochs, more.validation, more.stopped) == (3, [1.0, 2.0, 3.0], "patience")


if __name__ == "__main__":
    path, workers, step, number = sys.argv[1], *map(int, sys.argv[2:])
    # Ctrl-C in a terminal goes to the process and its workers; a kill does not.
    send = partial(os.killpg, 0, number) if number == signal.SIGINT else partial(os.kill, os.getpid(), number)
    torch.set_num_threads(1)
    train(Noisy(stop_at(step, send)), path, workers=workers)
