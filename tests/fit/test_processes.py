"""`fit` through Lightning Fabric: one process as without it, two as one process with the whole
batch.

Run under torchrun, this file is each of the two processes: it does every job below and saves what
came of them.
"""

import contextlib
import io
import random
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bayesnn.fit import fit
from bayesnn.functional import progress

quiet = partial(fit, progress=False, optimizer=partial(torch.optim.SGD, lr=0.01))
SIZE, DIMENSIONS = 16, 4_000
# One xdist worker starts the two processes, not each of them; where xdist is missing its mark is
# unknown.
pytestmark = [pytest.mark.xdist_group("processes")] if find_spec("xdist") else []


def data():
    x = torch.randn(SIZE, 3, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x.sum(-1))


class Regression(pyro.nn.PyroModule):
    """A sum-type loss: the likelihood is scaled by size / batch. Its noise is
    that of a global site.
    """

    def __init__(self):
        super().__init__()
        self.size = SIZE
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=self.size / len(x)):
            pyro.sample("y", dist.Normal(x @ w, self.log_scale.exp()), obs=y)


def elbo():
    pyro.clear_param_store()
    model = Regression()
    return Trace_ELBO()(model, AutoNormal(model))


class PerExample(nn.Module):
    """Each example has noise of its own in every dimension; the expected gradient at 0 is minus
    the data's mean.
    """

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(DIMENSIONS))

    def forward(self, x, y):
        noise = torch.randn(len(x), DIMENSIONS)
        return ((self.at - y[:, None] - noise) ** 2).sum(1).mean() / 2


class Augmented(Dataset):
    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return torch.full((2,), float(index)) + torch.randn(2) + random.random() + np.random.rand()  # noqa: NPY002


class Watched(nn.Module):
    """A loss that calls `at` with the number of the call and can see its batch."""

    def __init__(self, at=lambda call, x: None):
        super().__init__()
        self.at, self.calls = at, -1
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        self.calls += 1
        self.at(self.calls, x)
        return ((self.weight - x - torch.randn(())) ** 2).mean()


def state(loss):
    return {name: value.detach().clone() for name, value in loss.state_dict().items()}


def whole_batches(fabric=None, processes=1, **options):
    # the parameters' start and the noise are process 0's
    torch.manual_seed(fabric.global_rank if fabric else 0)
    loss = elbo()
    history = quiet(loss, DataLoader(data(), batch_size=8 // processes), epochs=6, fabric=fabric, **options)
    return state(loss), history.loss


def per_example(fabric=None, processes=1):
    torch.manual_seed(0)
    loss = PerExample()
    sgd = partial(torch.optim.SGD, lr=1.0)
    quiet(loss, DataLoader(data(), batch_size=SIZE // processes), epochs=1, optimizer=sgd, fabric=fabric)
    return loss.at.detach()


def resumed(fabric, folder):
    """Shuffled shards, augmented from each process's own stream; stopped in the
    third epoch of four.
    """

    def run(loss, checkpoint, seed):
        torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)  # noqa: NPY002
        loader = DataLoader(Augmented(), batch_size=2, shuffle=True)
        history = quiet(loss, loader, epochs=4, checkpoint=checkpoint, fabric=fabric, every=3)
        return state(loss), history.loss, torch.rand(())

    def stop(call, x):
        if call == 11:
            raise KeyboardInterrupt

    rank = fabric.global_rank
    whole = run(Watched(), None, rank)
    with contextlib.suppress(KeyboardInterrupt):
        run(Watched(stop), folder / "resumed.pt", rank)
    fabric.barrier()
    loss = Watched()
    return whole, run(loss, folder / "resumed.pt", rank + 50), loss.calls


def not_finite(fabric):
    """Only process 1's batch of the third step is spoilt."""

    def spoil(call, x):
        if call == 3 and fabric.global_rank == 1:
            x[0, 1] = float("nan")

    loss = Watched(spoil)
    try:
        quiet(loss, DataLoader(Augmented(), batch_size=2), epochs=1, fabric=fabric)
    except FloatingPointError as error:
        return str(error), bool(loss.weight.isfinite().all())
    return "", True


def shown(fabric):
    progress.DELAY = 0.0  # short runs show nothing
    with contextlib.redirect_stderr(io.StringIO()) as text:
        fit(Watched(), DataLoader(Augmented(), batch_size=2), epochs=1, fabric=fabric)
    return text.getvalue()


def early(fabric):
    """Each process alone would decide otherwise: 0 stops after one epoch, 1 never."""
    values = iter([5.0, 6.0, 7.0, 8.0, 9.0] if fabric.global_rank == 0 else [5.0, 3.0, 2.5, 1.0, 0.0])
    loader = DataLoader(Augmented(), batch_size=2)
    return quiet(Watched(), loader, epochs=5, fabric=fabric, validate=lambda: next(values), patience=1)


def main(folder):
    from lightning_fabric import Fabric

    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    with pyro.settings.context(module_local_params=True):
        local = whole_batches(fabric, 2)
    found = {
        "whole": whole_batches(fabric, 2),
        "local": local,
        "clipped": whole_batches(fabric, 2, clip=1.0),
        "per example": per_example(fabric, 2),
        "resumed": resumed(fabric, folder),
        "not finite": not_finite(fabric),
        "shown": shown(fabric),
        "early": vars(early(fabric)),
    }
    torch.save(found, folder / f"{fabric.global_rank}.pt")


# --- two processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the two processes saved, and their folder."""
    pytest.importorskip("lightning_fabric")
    folder = tmp_path_factory.mktemp("processes")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, __file__, str(folder)], timeout=240, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4_000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)], folder


def same(one, other, tolerance=0.0):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("job", "clip"), [("whole", None), ("local", None), ("clipped", 1.0)])
def test_two_processes_equal_one_with_the_whole_batch(found, job, clip):
    parameters, losses = whole_batches(clip=clip)
    for rank in found[0]:
        same(rank[job][0], parameters, 1e-6)
        assert rank[job][1] == pytest.approx(losses, rel=1e-5)
    assert any((value != 0).any() for value in parameters.values())


def test_both_processes_hold_the_same_parameters(found):
    first, second = found[0]
    for job in ("whole", "local", "clipped"):
        same(first[job][0], second[job][0])
    same(first["resumed"][0][0], second["resumed"][0][0])


def test_per_example_noise_agrees_in_expectation(found):
    """The mean over independent dimensions, against its exact value, at a
    false-alarm rate of 1e-6.
    """
    exact = data().tensors[1].mean()
    for step, spread in [(found[0][0]["per example"], 2 / SIZE), (per_example(), 1 / SIZE)]:
        assert abs(step.mean() - exact) < 4.9 * (spread / DIMENSIONS) ** 0.5


def test_an_interrupted_run_of_two_processes_resumes_bit_for_bit(found):
    for rank in found[0]:
        whole, again, calls = rank["resumed"]
        same(again[0], whole[0])
        assert again[1:] == whole[1:]
        assert calls == 6  # sixteen steps, ten of them before


def test_each_process_makes_its_batches_from_its_own_stream(found):
    first, second = (rank["resumed"][0][2] for rank in found[0])
    assert first != second


def test_a_batch_that_is_not_finite_stops_both_processes(found):
    (first, kept_first), (second, kept_second) = (rank["not finite"] for rank in found[0])
    assert "at step 3 " in first
    assert "another process's batch" in first
    assert "batch is nan at index [0, 1]" in second
    assert kept_first
    assert kept_second


def test_only_process_0_shows_progress(found):
    first, second = found[0]
    assert "4/4" in first["shown"]
    assert second["shown"] == ""


def test_processes_stop_together(found):
    assert found[0][0]["early"] == found[0][1]["early"]
    assert found[0][0]["early"]["validation"] == [5.0, 4.5, 4.75]


def test_a_checkpoint_of_two_processes_is_refused_by_one(found):
    loader = DataLoader(Augmented(), batch_size=4, shuffle=True)
    with pytest.raises(ValueError, match="another number of processes: it has 2, this run 1"):
        quiet(Watched(), loader, epochs=4, checkpoint=found[1] / "resumed.pt")


# --- one process ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fabric():
    return partial(pytest.importorskip("lightning_fabric").Fabric, accelerator="cpu", devices=1)


def test_one_process_equals_no_fabric(fabric):
    ours, theirs = whole_batches(fabric()), whole_batches()
    same(ours[0], theirs[0])
    assert ours[1] == theirs[1]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_precision(fabric, precision, dtype):
    seen = []

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

        def forward(self, x):
            out = x @ self.weight
            seen.append(out.dtype)
            return out.float().pow(2).mean()

    loss = Product()
    quiet(loss, DataLoader(torch.ones(4, 2), batch_size=2), epochs=1, fabric=fabric(precision=precision))
    assert loss.weight.dtype == dtype
    assert seen[-1] == (torch.bfloat16 if precision == "bf16-mixed" else torch.float64)
    assert (loss.weight < 1).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="Fabric has float16 on CUDA only")
def test_an_overflow_of_scaled_gradients_skips_a_step_and_the_scale_is_kept(fabric, tmp_path):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

        def forward(self, x):
            # times the scale of 2^16: infinite in float16
            return (x @ self.weight).float().mul(100.0).sum()

    def run(checkpoint=None, epochs=3):
        loss, setup = Half(), fabric(accelerator="cuda", precision="16-mixed")
        quiet(loss, DataLoader(torch.ones(4, 2), batch_size=2), epochs=epochs, fabric=setup, checkpoint=checkpoint)
        return loss.weight.detach(), setup.strategy.precision.state_dict()

    weight, precision = run()
    assert precision["scale"] < 2**16
    assert (weight < 1).all()
    run(tmp_path / "run.pt", 1)
    again, kept = run(tmp_path / "run.pt")
    assert torch.equal(again, weight)
    assert kept == precision


if __name__ == "__main__":
    main(Path(sys.argv[1]))
