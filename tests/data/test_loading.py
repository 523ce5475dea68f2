"""Parts without overlap, loaders as tensors, and MNIST from files in the real IDX format."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import data

FALSE_ALARM_Z = 4.9  # two-sided 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_parts_of_mnist_are_balanced_and_do_not_overlap() -> None:
    labels = torch.arange(10).repeat_interleave(500)  # sorted, as MNIST's are
    identity = torch.arange(5_000)
    parts = data.split(identity, labels, train=1_000, validation=500, generator=seeded())
    assert [len(part) for part in parts] == [1_000, 500, 3_500]
    for part, share in zip(parts, (100, 50, 350), strict=True):
        index, classes = part.tensors
        assert torch.equal(classes, labels[index])
        assert classes.bincount().tolist() == [share] * 10
        tens = [ten.unique().numel() for ten in classes.split(10)]
        assert max(tens[:5]) > 3  # not in order of class
        assert min(tens) < 10  # nor one class after the other in turn
    assert torch.equal(torch.cat([part.tensors[0] for part in parts]).sort().values, identity)
    again = data.split(identity, labels, train=1_000, validation=500, generator=seeded())
    other = data.split(identity, labels, train=1_000, validation=500, generator=seeded(1))
    assert all(torch.equal(a.tensors[0], b.tensors[0]) for a, b in zip(parts, again, strict=True))
    assert not torch.equal(parts[0].tensors[0], other[0].tensors[0])


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    stratified=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_split_is_a_partition(counts: list[int], shares: tuple[float, float], stratified: bool, seed: int) -> None:
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    n = len(y)
    train = max(1, round(shares[0] * n))
    validation = round(shares[1] * (n - train))
    options = {"train": train, "validation": validation, "stratified": stratified}
    parts = data.split(torch.arange(n), y, **options, generator=seeded(seed))  # type: ignore[arg-type]
    assert [len(part) for part in parts] == [train, validation, n - train - validation]
    assert torch.cat([part.tensors[0] for part in parts]).sort().values.tolist() == list(range(n))
    # e_k - p_k sum(e), where |e_k| < 1 is class k's own rounding and p_k its frequency
    if stratified:
        for part in parts:
            share = torch.tensor(counts) * len(part) / n
            assert (part.tensors[1].bincount(minlength=len(counts)) - share).abs().max() <= max(1, len(counts) - 1)


def test_every_example_has_the_same_chance() -> None:
    y = torch.tensor([0] * 3 + [1] * 7)
    generator = seeded()
    chosen = torch.zeros(10)
    for _ in range(2_000):
        chosen[data.split(torch.arange(10), y, train=4, generator=generator)[0].tensors[0]] += 1
    z = (chosen / 2_000 - 0.4) / (0.4 * 0.6 / 2_000) ** 0.5
    assert z.abs().max() < FALSE_ALARM_Z + 0.5  # ten looks at once


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({"train": 5}, torch.arange(9), "10 inputs but 9 targets"),
        ({"train": 0}, torch.arange(10), "train must be 1 or more"),
        ({"train": 5, "validation": -1}, torch.arange(10), "validation 0 or more"),
        ({"train": 8, "validation": 3}, torch.arange(10), "together at most 10"),
        ({"train": 5}, torch.randn(10, 1), "stratified=False"),
        ({"train": 5}, torch.arange(10)[:, None], r"shape \(10, 1\)"),
    ],
)
def test_an_impossible_split_is_refused(options: dict[str, int], y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.split(torch.zeros(10, 2), y, **options)  # type: ignore[arg-type]


def test_regression_and_booleans_can_be_split() -> None:
    x, y = data.diabetes()
    parts = data.split(x, y, train=300, stratified=False, generator=seeded())
    assert torch.equal(torch.cat([p.tensors[1] for p in parts]).sum(), y.sum())
    train, _, _ = data.split(x, y[:, 0] > 140, train=100)
    assert abs(int(train.tensors[1].sum()) - 100 * float((y > 140).double().mean())) <= 1


def test_tensors_undoes_a_loader() -> None:
    a, b, y = torch.randn(7, 3), torch.arange(14).reshape(7, 2), torch.arange(7)
    stacked, targets = data.tensors(DataLoader(TensorDataset(a, y), batch_size=3))
    assert torch.equal(stacked, a)
    assert torch.equal(targets, y)
    pairs: Any = [((a[i], {"b": b[i]}), y[i]) for i in range(7)]
    (first, second), targets = data.tensors(DataLoader(pairs, batch_size=2))
    assert torch.equal(first, a)
    assert torch.equal(second["b"], b)
    assert torch.equal(targets, y)
    stacked, _ = data.tensors([({"a": a[:4], "b": b[:4]}, y[:4]), ({"b": b[4:], "a": a[4:]}, y[4:])])
    assert torch.equal(stacked["a"], a)
    assert torch.equal(stacked["b"], b)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "gave no batch"),
        (DataLoader(TensorDataset(torch.zeros(3, 1), torch.zeros(3)), batch_size=4, drop_last=True), "drop_last=True"),
        ([torch.zeros(2, 3)], r"batch 0 is a Tensor, not a pair"),
        ([(torch.zeros(2), torch.zeros(2), torch.zeros(2))], "a tuple of 3, not a pair"),
        ([(torch.zeros(2, 3), torch.zeros(2)), (torch.zeros(2, 4), torch.zeros(2))], r"of x do not fit .*\(2, 4\)"),
        ([((torch.zeros(2, 3),), torch.zeros(2)), (torch.zeros(2, 3), torch.zeros(2))], "x is Tensor and tuple"),
        ([({"a": torch.zeros(2, 3)}, torch.zeros(2)), ({"b": torch.zeros(2, 3)}, torch.zeros(2))], "x is dict"),
        ([({"a": 3}, torch.zeros(2))], r"x\['a'\] is int"),
        ([(torch.zeros(2), torch.tensor(1.0))], "of y do not fit"),
    ],
)
def test_a_loader_that_cannot_be_stacked_is_refused(batches: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.tensors(batches)


def write_idx(root: Path, name: str, *, n: tuple[int, int] = (5, 3)) -> dict[str, Tensor]:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    written = {}
    for part, size in zip(("train", "t10k"), n, strict=True):
        images = torch.randint(256, (size, 28, 28), generator=seeded(size), dtype=torch.uint8)
        labels = torch.arange(size, dtype=torch.uint8)
        header = struct.pack(">IIII", 0x803, size, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, size) + labels.numpy().tobytes())
        written[part] = images
    return written


@pytest.mark.parametrize(("read", "name"), [(data.mnist, "MNIST"), (data.fashion_mnist, "FashionMNIST")])
def test_mnist_reads_the_real_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[..., tuple[Tensor, Tensor]], name: str
) -> None:
    from torchvision import datasets

    def refuse(self: object) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(datasets.MNIST, "download", refuse)
    written = write_idx(tmp_path, name)
    for train, part in ((True, "train"), (False, "t10k")):
        images, labels = read(tmp_path, train=train)
        assert torch.equal(images, written[part][:, None].float() / 255)
        assert (labels.dtype, labels.tolist()) == (torch.int64, list(range(len(written[part]))))


def test_mnist_says_which_files_are_missing_and_where(tmp_path: Path) -> None:
    write_idx(tmp_path, "MNIST")
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"mnist: t10k-images-idx3-ubyte not found in .*raw.*download=True"):
        data.mnist(tmp_path)


def test_mnist_refuses_damaged_files(tmp_path: Path) -> None:
    write_idx(tmp_path, "MNIST")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    for broken in (whole[:-1], b"\x00\x00\x00\x00" + whole[4:], b""):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"is damaged .*fetch it again"):
            data.mnist(tmp_path)
    file.write_bytes(struct.pack(">IIII", 0x803, 1, 28, 28) + whole[16 : 16 + 28 * 28])
    with pytest.raises(ValueError, match="1 images but 5 labels"):
        data.mnist(tmp_path)


def test_a_failed_download_says_where_the_files_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import mnist as source

    def offline(*args: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(source, "download_and_extract_archive", offline)
    with pytest.raises(FileNotFoundError, match=r"the download to .*MNIST/raw failed .*no network.*by hand"):
        data.mnist(tmp_path, download=True)
