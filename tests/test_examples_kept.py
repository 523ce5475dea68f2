"""A study's JSON files are whole or absent, whenever the run is stopped."""

import json
from pathlib import Path

import pytest

from examples.studies.common import kept, study


def test_what_is_written_is_read_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "seed_0.json"
    assert kept.read(file) is None
    kept.write(file, {"MAP": {"nll": 0.25}})
    kept.write(file, {"MAP": {"nll": 0.5}})
    assert kept.read(file) == {"MAP": {"nll": 0.5}}
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_stopped_while_it_writes_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "seed_0.json"
    kept.write(file, [1, 2])

    def stopped(self: Path, text: str, encoding: str) -> None:
        with self.open("w", encoding=encoding) as half:
            half.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        kept.write(file, [1, 2, 3])
    assert kept.read(file) == [1, 2]


@pytest.mark.parametrize("left", [b"", b'{"MAP": {"nll": 0.2', b"\xff\xfe{"])
def test_half_a_file_counts_as_none_and_one_line_says_so(
    left: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "seed_0.json"
    file.write_bytes(left)
    assert kept.read(file) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{file} cannot be read (")
    assert line.endswith("what it held is computed again")


def test_a_study_repeats_the_seed_whose_file_is_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--seeds", "0", "1", "--runs", str(tmp_path), "--out", str(tmp_path / "out")])
    (tmp_path / "seed_0.json").write_text('{"seed": 0}')
    (tmp_path / "seed_1.json").write_text('{"se')
    found, out = study.each_seed(lambda options: {"seed": options.seed, "again": True}, "test", "A test.")
    assert found == [{"seed": 0}, {"seed": 1, "again": True}]
    assert json.loads((tmp_path / "seed_1.json").read_text()) == found[1]
    assert out == tmp_path / "out"
    assert "seed_1.json cannot be read" in capsys.readouterr().out
