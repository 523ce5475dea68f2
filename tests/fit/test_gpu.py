"""`fit` on a GPU: batches follow the loss, and a resumed run draws the noise that the
uninterrupted one drew.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from bayesnn.fit import fit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

quiet = partial(fit, progress=False, optimizer=partial(torch.optim.Adam, lr=0.1), epochs=3)


class Noisy(nn.Module):
    """Noise from the device's generator and from the CPU's."""

    def __init__(self, stop=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, device="cuda"))
        self.calls, self.stop = -1, stop

    def forward(self, x):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        assert x.is_cuda
        noise = torch.randn(3, device="cuda") + torch.randn(3).cuda()
        return ((x[:, None] - self.weight - noise) ** 2).mean()


def train(loss, checkpoint=None, *, seed=0):
    torch.manual_seed(seed)
    loader = DataLoader(torch.arange(12.0), batch_size=4, shuffle=True, pin_memory=True)
    history = quiet(loss, loader, checkpoint=checkpoint, validate=lambda: torch.randn((), device="cuda"))
    return loss.weight.tolist(), history, torch.rand((), device="cuda").item(), torch.rand(()).item()


def test_resumes_bit_for_bit(tmp_path):
    whole = train(Noisy())
    with pytest.raises(KeyboardInterrupt):
        train(Noisy(stop=6), tmp_path / "run.pt")
    loss = Noisy()
    assert train(loss, tmp_path / "run.pt", seed=99)[:2] == whole[:2]
    assert loss.calls == 4


def test_the_loss_takes_nothing_from_the_devices_generator():
    torch.cuda.manual_seed_all(7)
    before = torch.cuda.get_rng_state()
    quiet(Noisy(), [torch.ones(2)])
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_fabric_moves_loss_and_batches():
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cuda", devices=1)
    loss = nn.Linear(2, 1)
    forward = loss.forward
    loss.forward = lambda x: forward(x).pow(2).mean()
    history = quiet(loss, DataLoader(torch.ones(8, 2), batch_size=4), fabric=fabric)
    assert loss.weight.is_cuda
    assert history.loss[-1] < history.loss[0]
