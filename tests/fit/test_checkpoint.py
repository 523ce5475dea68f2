"""Checkpoints of `fit`: refused by another run, written at once or not at all, read without
executing anything.
"""

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


def changed(path, *keys, to):
    """The file with the entry at these keys replaced, or removed where `to` is None."""
    content = torch.load(path, weights_only=True)
    place = content
    for key in keys[:-1]:
        place = place[key]
    if to is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = to
    torch.save(content, path)


NAN = float("nan")
GROUPS = r"parts\['optimizer'\]\['param_groups'\]"
DAMAGED = {
    "no parts": (("parts",), None, "parts is missing"),
    "no loss": (("parts", "loss"), None, r"parts\['loss'\] is missing"),
    "no weight": (("parts", "loss", "weight"), None, r"parts\['loss'\]\['weight'\] is missing"),
    "short": (("parts", "loss", "weight"), torch.zeros(2), r"parts\['loss'\]\['weight'\] is no tensor of shape \[3\]"),
    "NaN": (("parts", "loss", "weight"), torch.tensor([0, NAN, 0]), r"parts\['loss'\]\['weight'\] is not finite"),
    "no optimizer": (("parts", "optimizer"), None, r"parts\['optimizer'\] is missing"),
    "no state": (("parts", "optimizer", "state"), None, r"parts\['optimizer'\]\['state'\] is missing"),
    "no groups": (("parts", "optimizer", "param_groups"), [], rf"{GROUPS}\[0\] is missing"),
    "no rate": (("parts", "optimizer", "param_groups", 0, "lr"), None, rf"{GROUPS}\[0\]\['lr'\] is missing"),
    "infinite moments": (
        ("parts", "optimizer", "state", 0, "exp_avg"),
        torch.full((3,), torch.inf),
        r"parts\['optimizer'\]\['state'\]\[0\]\['exp_avg'\] is not finite",
    ),
    "no run": (("run",), None, "run is missing"),
    "no seed": (("run", "seed"), None, r"run\['seed'\] is missing"),
    "unknown": (("run", "other"), 1, r"run\['other'\] is no part of a run"),
    "losses": (("run", "loss"), [1.0, NAN], r"run\['loss'\]\[1\] is not finite"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_missing_parts_and_numbers_that_are_not_finite_are_refused(written, kind):
    keys, to, words = DAMAGED[kind]
    changed(written, *keys, to=to)
    bytes_before, loss = written.read_bytes(), Line(subset=Subset("a"))
    with pytest.raises(ValueError, match=f"is damaged: {words}. Nothing was changed; .* remove it to start anew"):
        quiet(loss, loader(), epochs=3, checkpoint=written)
    assert (loss.weight == 0).all()
    assert written.read_bytes() == bytes_before


def test_what_is_not_trained_may_be_infinite(tmp_path):
    def made():
        loss = Line()
        loss.register_buffer("best", torch.tensor(torch.inf))
        loss.register_parameter("mask", nn.Parameter(torch.tensor(-torch.inf), requires_grad=False))
        return loss

    for epochs in (1, 2):
        assert quiet(made(), loader(), epochs=epochs, checkpoint=tmp_path / "run.pt").epochs == epochs


class Stopping:
    """A loader that fails in its second pass, the first being the warm-up's."""

    def __init__(self, error):
        self.error, self.passes = error, 0

    def __iter__(self):
        self.passes += 1
        yield torch.ones(2)
        if self.passes > 1:
            raise self.error


@pytest.mark.parametrize("error", [KeyError("the loader broke"), KeyboardInterrupt()])
def test_a_checkpoint_that_cannot_be_written_does_not_hide_what_stopped_the_run(tmp_path, monkeypatch, error):
    def full(source, target):
        if loop.passes > 1:
            raise OSError("disk full")
        replace(source, target)

    loop, replace, path = Stopping(error), os.replace, tmp_path / "run.pt"
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(type(error)) as caught:
        quiet(Line(), loop, epochs=2, checkpoint=path)
    assert caught.value is error
    note = caught.value.__notes__[-1]
    assert "stopped after step 1" in note
    assert f"{path} holds an earlier step, since it could not be written now (OSError('disk full'))" in note
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


def test_each_process_writes_to_a_file_of_its_own(tmp_path, monkeypatch):
    names, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: names.append(source) or replace(source, target))
    for _ in range(2):
        quiet(Line(), loader(), epochs=1, checkpoint=tmp_path / "run.pt")
        (tmp_path / "run.pt").unlink()
    assert len(set(names)) == len(names) == 4  # two files a run: at first, and at the end
    assert {name.parent for name in names} == {tmp_path}


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
