"""Every example runs: stories, studies and benchmarks are found, there is no list to forget."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.studies.common.options import parse

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PEERS = ROOT / ".venv-peers" / "bin" / "python"
"""An environment with laplace-torch 0.3: `make bench-peers` makes it."""


def has_main(file: Path) -> bool:
    return 'if __name__ == "__main__":' in file.read_text(encoding="utf-8")


STORIES = sorted(file.stem for file in EXAMPLES.glob("*.py") if file.stem != "__init__")
STUDIES = sorted(f"studies.{file.parent.name}" for file in EXAMPLES.glob("studies/*/__main__.py"))
BENCHMARKS = sorted(f"benchmarks.{file.stem}" for file in EXAMPLES.glob("benchmarks/*.py") if has_main(file))


def run(name: str, *arguments: str, cwd: Path, path: str | None = str(ROOT)) -> subprocess.CompletedProcess[str]:
    """`python -m examples.NAME` under SMOKE, from a folder that its files may fill."""
    # One thread each: several tests run at a time.
    environment = {**os.environ, "SMOKE": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    if path is not None:
        environment["PYTHONPATH"] = path
    command = [sys.executable, "-m", f"examples.{name}", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_there_are_examples() -> None:
    assert "quickstart" in STORIES
    assert "studies.segmentation" in STUDIES
    assert "benchmarks.core" in BENCHMARKS


@pytest.mark.parametrize("story", STORIES)
def test_a_story_is_short(story: str) -> None:
    assert len((EXAMPLES / f"{story}.py").read_text(encoding="utf-8").splitlines()) < 100


def test_nothing_touches_the_import_path() -> None:
    touching = [file for file in EXAMPLES.rglob("*.py") if "sys.path" in file.read_text(encoding="utf-8")]
    assert not touching


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STORIES, *STUDIES, *BENCHMARKS])
def test_example_runs(name: str, tmp_path: Path) -> None:
    done = run(name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr


def test_the_root_of_a_checkout_is_on_the_path_already() -> None:
    done = run("quickstart", "--epochs", "0", cwd=ROOT, path=None)
    assert "--epochs: a whole number" in done.stderr


@pytest.mark.slow
def test_a_study_goes_through_spawned_processes(tmp_path: Path) -> None:
    done = run("studies.transfer_simulation", "--workers", "2", "--seeds", "1", "--few-seeds", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("transfer-runs/**/*.json"))) == 2


@pytest.mark.slow
@pytest.mark.skipif(not PEERS.exists(), reason="no environment with laplace-torch; `make bench-peers` makes it")
def test_laplace_torch_has_our_numbers(tmp_path: Path) -> None:
    done = run("benchmarks.laplace_agreement", "--peer", str(PEERS), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    same = [row for row in rows if not row[0].startswith("convolution, all") and len(row) == 4]
    assert len(same) == 8
    assert all(float(row[3]) < 1e-6 for row in same)  # their products are in single precision


@pytest.mark.slow
def test_quickstart_writes_its_folder(tmp_path: Path) -> None:
    arviz = pytest.importorskip("arviz")
    out = tmp_path / "made" / "here"
    done = run("quickstart", "--out", str(out), "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    methods = ["MAP", "Laplace, last layer", "Laplace, sub-network", "ensemble of 2"]
    page = (out / "index.html").read_text(encoding="utf-8")
    for method in methods:
        assert method in done.stdout
        assert method in page
        assert f'"{method}"' in (out / "table.csv").read_text()
        assert f"| {method} |" in (out / "table.md").read_text()
    figures = sorted(path.stem for path in out.glob("*.png"))
    assert page.count("data:image/png;base64,") == len(figures) == 6
    assert "$" not in page.split("</style>")[1], "a placeholder was left"
    data = arviz.from_netcdf(out / "laplace.nc")
    assert data["log_likelihood"]["y"].shape == (1, 20, 100)
    assert not list(tmp_path.glob("quickstart-output"))


BAD = [
    ("--epochs", "0"),
    ("--epochs", "many"),
    ("--train-size", "5000"),
    ("--seed", "-1"),
    ("--device", "abacus"),
    ("--out", str(EXAMPLES / "quickstart.py")),
    ("--out", os.devnull + "/x"),
    ("--learning-rate", "1"),
]


def test_quickstart_refuses_a_bad_value_before_it_starts(tmp_path: Path) -> None:
    done = run("quickstart", *BAD[0], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    line = "argument --epochs: a whole number from 1 to 10000 is needed, not '0'"
    assert done.stderr == f"python -m examples.quickstart: {line}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", BAD, ids=[" ".join(pair[:1]) + f" {i}" for i, pair in enumerate(BAD)])
def test_every_bad_value_gets_one_line(
    arguments: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert len(error.strip().splitlines()) == 1
    assert arguments[0] in error


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert not ended.value.code
    text = capsys.readouterr().out
    for option in ("--out", "--seed", "--device", "--epochs", "--train-size"):
        assert option in text


@pytest.mark.slow
def test_study_goes_on_from_the_seeds_it_has(tmp_path: Path) -> None:
    arguments = ("--seeds", "7", "--runs", "runs", "--out", "tables")
    done = run("studies.quickstart_seeds", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    kept = tmp_path / "runs" / "seed_7.json"
    numbers = json.loads(kept.read_text())
    numbers["wide prior"]["MAP"]["nll"] = 123.0
    kept.write_text(json.dumps(numbers))
    again = run("studies.quickstart_seeds", *arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "123.000" in again.stdout
    assert "123.000" in (tmp_path / "tables" / "quickstart.md").read_text()
