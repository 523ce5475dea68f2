"""The package: its list of rooms, what each may import, the size of its files,
and what importing it costs.
"""

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = [ROOT / "bayesnn", ROOT / "guides"]
LONGEST, MEDIAN, MEDIAN_OF_TESTS = 400, 120, 150

LOW = {"distributions", "functional", "curvature", "moments", "subset", "scales", "handlers", "tempering", "sites"}
CORE = LOW | {"priors", "likelihoods", "models"}
MAY_IMPORT: dict[str, set[str]] = {
    "handlers": {"functional"},
    "sites": set(),
    "scales": {"functional", "handlers"},
    "distributions": set(),
    "functional": set(),
    "tempering": set(),
    "curvature": {"functional"},
    "moments": {"functional"},
    "subset": {"functional", "curvature"},
    "priors": {"scales", "sites"},
    "likelihoods": {"scales", "moments"},
    "models": CORE - {"models", "curvature", "moments"},
    "guides": CORE | {"arviz"},
    "mcmc": {"functional", "sites", "tempering", "fit"},
    "fit": {"functional"},
    "predict": {"functional", "curvature", "models", "likelihoods", "handlers", "sites", "tempering"},
    "scores": {"functional", "subset"},
    "explain": {"predict"},
    "metrics": set(),
    "arviz": {"metrics", "predict", "models", "functional", "sites", "tempering"},
    "plots": {"metrics", "predict", "models", "functional"},
    "data": {"metrics", "predict", "functional"},
    "transfer": CORE | {"guides", "predict", "metrics", "arviz"},
}
"""The only allowed directions, those of the table in docs/design.md. `bayesnn/__init__.py` may
import every room.
"""


def python_files(*folders: Path) -> list[Path]:
    """Without what lies behind links: bayesnn/guides shows guides/ a second time."""
    return sorted(path for folder in folders for path in folder.rglob("*.py") if not _linked(path, folder))


def _linked(path: Path, folder: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents if folder in parent.parents)


def room_of(path: Path) -> str:
    relative = path.relative_to(ROOT).with_suffix("").parts
    return "guides" if relative[0] == "guides" else relative[1]


def imported_rooms(path: Path) -> set[str]:
    """The rooms of bayesnn that a file imports anywhere, those inside functions and under
    TYPE_CHECKING too.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "bayesnn":
                found |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("bayesnn."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "bayesnn"]
            assert "bayesnn" not in names, f"{path} imports the whole package"
            found |= {name.split(".")[1] for name in names}
    return found


@pytest.mark.parametrize(
    "path", [p for p in python_files(*SOURCE) if p.parts[-2:] != ("bayesnn", "__init__.py")], ids=str
)
def test_imports_go_in_the_allowed_directions(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"the room {room!r} is not in the table"
    forbidden = imported_rooms(path) - MAY_IMPORT[room] - {room}
    assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_the_directions_have_no_circle() -> None:
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {room for room, needs in MAY_IMPORT.items() if needs <= done} - done
        assert ready, f"a circle among {sorted(MAY_IMPORT.keys() - done)}"
        done |= ready


def test_the_design_has_the_same_directions() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `(\w+)` \|.*\| ([\w, ]+) \|$", text)
    assert {room: set(needs.split(", ")) - {"nothing"} for room, needs in rows} == MAY_IMPORT


def imported_files(path: Path, files: dict[str, Path]) -> set[str]:
    """The files of bayesnn that a file imports anywhere, by module name; packages through what
    they name themselves.
    """
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names} | {str(n.module) for n in nodes}
    return names & files.keys()


def test_the_files_have_no_circle() -> None:
    files = {
        ("bayesnn." if room_of(path) == "guides" else "") + ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in python_files(*SOURCE)
        if path.name != "__init__.py"
    }
    waiting = {name: imported_files(path, files) for name, path in files.items()}
    while ready := {name for name, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}
    assert not waiting, f"a circle among {sorted(waiting)}"


def test_the_package_list_is_complete() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    present = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in python_files(*SOURCE) if path.name == "__init__.py"
    }
    present = {"bayesnn." + name if name.startswith("guides") else name for name in present}
    assert sorted(declared) == sorted(present)
    assert list(declared) == sorted(declared)


def test_every_folder_with_source_is_a_package() -> None:
    assert all((path.parent / "__init__.py").exists() for path in python_files(*SOURCE))


def test_guides_lie_at_the_top_and_ship_inside() -> None:
    link = ROOT / "bayesnn" / "guides"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "guides"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_guides_have_one_name() -> None:
    done = run("import guides")
    assert done.returncode != 0
    assert "ImportError: import bayesnn.guides, not guides" in done.stderr


def test_importing_the_package_imports_no_heavy_library() -> None:
    heavy = ["torchvision", "arviz", "matplotlib", "sklearn", "scipy.stats", "pandas", "xarray", "PIL", "torchmetrics"]
    heavy += ["scoringrules", "lightning_fabric", "mlxtend", "IPython"]
    done = run(f"import sys, bayesnn; print([name for name in {heavy} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("folders", "median"), [(SOURCE, MEDIAN), ([ROOT / "tests"], MEDIAN_OF_TESTS)], ids=["source", "tests"]
)
def test_files_are_small(folders: list[Path], median: int) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in python_files(*folders)}
    long = {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > LONGEST}
    assert not long, f"longer than {LONGEST} lines: {long}"
    assert statistics.median(lengths.values()) <= median


def test_the_package_is_typed() -> None:
    assert (ROOT / "bayesnn" / "py.typed").exists()
