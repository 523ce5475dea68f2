"""Checkpoints of `fit`: refused by another run, written at once or not at all, read without executing anything."""

import os
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from bayesnn.fit import checkpoint as room
from bayesnn.fit import fit

quiet = partial(fit, progress=False)


class Subset:
    def __init__(self, text):
        self.text = text

    def fingerprint(self):
        return self.text


class Line(nn.Module):
    def __init__(self, features=3, dtype=torch.float32, name="weight", subset=None):
        super().__init__()
        self.name = name
        setattr(self, name, nn.Parameter(torch.zeros(features, dtype=dtype)))
        self.model = nn.Module()
        self.model.subset = subset

    def forward(self, x):
        return ((getattr(self, self.name) - x.mean()) ** 2).sum()


def loader(examples=8, batch_size=2):
    return DataLoader(torch.arange(float(examples)), batch_size=batch_size)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "run.pt"
    quiet(Line(subset=Subset("a")), loader(), epochs=2, checkpoint=path)
    return path


@pytest.mark.parametrize(
    ("loss", "options", "words"),
    [
        ({"features": 4}, {}, r"of another model: 'weight' is torch.float32 \[3\] there and torch.float32 \[4\] here"),
        ({"dtype": torch.float64}, {}, r"of another model: 'weight' is torch.float32 \[3\] there and torch.float64"),
        ({"name": "other"}, {}, r"of another model: 'other' is missing there"),
        ({"subset": Subset("b")}, {}, "of another subset: it has a, this run b"),
        ({"subset": None}, {}, "of another subset: it has a, this run None"),
        ({}, {"optimizer": partial(torch.optim.SGD, lr=0.1)}, "of another optimizer: it has Adam.*this run SGD"),
        ({}, {"schedule": partial(torch.optim.lr_scheduler.StepLR, step_size=2)}, "of another schedule"),
        ({}, {"loader": loader(batch_size=4)}, "of another number of batches: it has 4, this run 2"),
        (
            {},
            {"loader": DataLoader(torch.arange(8.0), batch_size=2, generator=torch.Generator())},
            "of another number of generators of the loader: it has 0, this run 1",
        ),
    ],
)
def test_refused_before_anything_is_changed(written, loss, options, words):
    given = {"loader": loader(), "epochs": 3, **options}
    other = Line(**{"subset": Subset("a"), **loss})
    bytes_before = written.read_bytes()
    with pytest.raises(ValueError, match=words) as caught:
        quiet(other, given.pop("loader"), checkpoint=written, **given)
    assert f"{written}" in str(caught.value)
    assert "remove the file to start anew" in str(caught.value)
    assert all((p == 0).all() for p in other.parameters())
    assert written.read_bytes() == bytes_before


def test_refused_when_of_another_version(written, monkeypatch):
    monkeypatch.setattr(room, "VERSION", room.VERSION + 1)
    with pytest.raises(ValueError, match="of another version: it has 1, this run 2"):
        quiet(Line(subset=Subset("a")), loader(), epochs=2, checkpoint=written)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("created-by-a-pickle",)


@pytest.mark.parametrize(
    "content", [b"", b"text", pickle.dumps({"version": 1}), pickle.dumps(Malicious()), "list", "directory"]
)
def test_refused_when_not_a_checkpoint(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.pt"
    if content == "list":
        torch.save([1, 2], path)
    elif content == "directory":
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="not a checkpoint of fit, or it is damaged"):
        quiet(Line(), loader(), epochs=1, checkpoint=path)
    assert not (tmp_path / "created-by-a-pickle").exists()


def test_a_damaged_file_is_refused(written):
    written.write_bytes(written.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged"):
        quiet(Line(subset=Subset("a")), loader(), epochs=2, checkpoint=written)


@pytest.mark.parametrize("moment", ["save", "fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file(written, monkeypatch, moment):
    old = written.read_bytes()

    def broken(*args):
        if moment == "save":
            args[1].write(b"half a file")
        raise OSError("disk full")

    owner = {"save": torch, "fsync": os, "replace": os}[moment]
    monkeypatch.setattr(owner, moment, broken)
    with pytest.raises(OSError, match="disk full"):
        quiet(Line(subset=Subset("a")), loader(), epochs=4, checkpoint=written, every=1)
    monkeypatch.undo()
    assert written.read_bytes() == old
    assert quiet(Line(subset=Subset("a")), loader(), epochs=4, checkpoint=written).epochs == 4
    assert [file.name for file in written.parent.iterdir()] == ["run.pt"]


def test_a_path_that_cannot_be_written_fails_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    loss = Line()
    with pytest.raises(OSError, match="file"):
        quiet(loss, loader(), epochs=1, checkpoint=tmp_path / "file" / "run.pt")
    assert (loss.weight == 0).all()


def test_every_counts_steps(tmp_path, monkeypatch):
    steps = []
    write = room.Checkpoint.write
    monkeypatch.setattr(room.Checkpoint, "write", lambda self, run: steps.append(run.steps) or write(self, run))
    quiet(Line(), loader(), epochs=3, checkpoint=tmp_path / "run.pt", every=5)
    assert steps == [0, 5, 10, 12]  # before the first step, each interval, at the end


def test_numpys_numbers_are_kept_as_pythons(tmp_path):
    rate = np.logspace(-3, -1, 3)[1]
    optimizer = partial(torch.optim.Adam, lr=rate, weight_decay=np.float32(0.1))
    whole, first, second = Line(), Line(), Line()
    quiet(whole, loader(), epochs=2, optimizer=optimizer)
    quiet(first, loader(), epochs=1, optimizer=optimizer, checkpoint=tmp_path / "run.pt")
    quiet(second, loader(), epochs=2, optimizer=optimizer, checkpoint=tmp_path / "run.pt")
    assert torch.equal(whole.weight, second.weight)


def test_a_state_that_cannot_be_kept_safely_is_refused_before_training(tmp_path):
    def optimizer(groups):
        return torch.optim.Adam([{**group, "note": object()} for group in groups])

    loss = Line()
    with pytest.raises(TypeError, match=r"state of optimizer\['param_groups'\]\[0\]\['note'\] is a object"):
        quiet(loss, loader(), epochs=1, checkpoint=tmp_path / "run.pt", optimizer=optimizer)
    assert (loss.weight == 0).all()


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=12),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
        lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 5]),
        lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=4),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8),
            ],
            milestones=[4],
        ),
    ],
)
def test_schedules_resume(tmp_path, schedule):
    whole, first, second = Line(), Line(), Line()
    quiet(whole, loader(), epochs=3, schedule=schedule)
    quiet(first, loader(), epochs=1, schedule=schedule, checkpoint=tmp_path / "run.pt")
    quiet(second, loader(), epochs=3, schedule=schedule, checkpoint=tmp_path / "run.pt")
    assert torch.equal(whole.weight, second.weight)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_workers": 1, "persistent_workers": True}, "persistent_workers=False"),
        ({"num_workers": 1, "in_order": False}, "in_order=True"),
    ],
)
def test_loaders_that_cannot_be_replayed_are_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        quiet(Line(), DataLoader(torch.ones(4), **options), epochs=1, checkpoint=tmp_path / "run.pt")


def test_a_loader_that_gives_fewer_batches_than_before_is_refused(tmp_path):
    class Shrinking:
        def __init__(self, *lengths):
            self.lengths = list(lengths)

        def __iter__(self):
            for number in range(self.lengths.pop(0)):
                yield torch.full((1,), float(number))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # the warm-up, then an epoch of 4 batches
        quiet(Line(), Shrinking(4, 4), epochs=1, checkpoint=tmp_path / "run.pt", validate=interrupt)
    with pytest.raises(ValueError, match="after batch 4 of an epoch, but the loader gives fewer"):
        quiet(Line(), Shrinking(4, 3), epochs=1, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="gave no batch in epoch 2"):
        quiet(Line(), Shrinking(4, 4, 0), epochs=2)
