"""The documentation is complete: every public name, every page in reach, no
stale link or equation.
"""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAMESPACES = runpy.run_path(str(DOCS / "_ext" / "namespaces.py"))
ROOMS = [namespace for namespace in NAMESPACES["namespaces"]() if "." not in namespace]


def toctree(page: Path) -> list[Path]:
    """The pages that a page's toctrees list."""
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [page.parent / f"{line}.md" for line in lines if line and not line.startswith(":")]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_in_the_reference(room: str) -> None:
    exported = {
        f"{face}.{name}"
        for name, faces in NAMESPACES["public_names"]().items()
        for face in faces.values()
        if face.split(".")[0] == room
    }
    page = (DOCS / "api" / f"{room}.md").read_text()
    documented = re.findall(r"\.\. (?:auto(?!module)\w+|py:data):: bayesnn\.([\w.]+)", page)
    # each once: what a face exports out of a family, under the face
    assert sorted(documented) == sorted(exported)


def test_nested_namespaces_are_read() -> None:
    names = NAMESPACES["public_names"]()
    assert names["Diagonal"] == {"guides": "guides", "guides.laplace": "guides"}
    assert names["BlockConditional"] == {"guides.laplace": "guides.laplace"}
    assert names["learned"] == {"likelihoods": "likelihoods", "priors": "priors"}


@pytest.mark.parametrize(
    ("text", "owner", "target"),
    [
        ("Diagonal", "bayesnn.subset.Subset", "bayesnn.guides.Diagonal"),
        ("laplace.Diagonal", "bayesnn.subset.Subset", "bayesnn.guides.Diagonal"),
        ("BlockConditional", "bayesnn.guides.Laplace.fit", "bayesnn.guides.laplace.BlockConditional"),
        ("guides.laplace.distance_to_mode()", "", "bayesnn.guides.laplace.distance_to_mode"),
        ("split", "bayesnn.data.tensors", "bayesnn.data.split"),
        ("learned", "bayesnn.fit.fit", None),  # two namespaces have one
        ("dense", "bayesnn.models.rank_one.RankOne", None),  # its own member
        ("distance_to_mode", "bayesnn.guides.laplace.distance_to_mode", None),
    ],
)
def test_names_are_linked_to_their_namespace(
    text: str, owner: str, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    to_rst = runpy.run_path(str(DOCS / "_ext" / "docstrings.py"))["to_rst"]
    assert to_rst(f"`{text}`", owner) == (f":py:obj:`{text} <{target}>`" if target else f"``{text}``")


def test_every_page_can_be_reached_from_the_first() -> None:
    reached: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        assert page.is_file(), f"{page.relative_to(ROOT)} is in a toctree, but does not exist"
        if page not in reached:
            reached.add(page)
            waiting += toctree(page)
    left_out = ("_build", "tables")  # built, and included by other pages
    pages = {page for page in DOCS.rglob("*.md") if page.relative_to(DOCS).parts[0] not in left_out}
    assert reached == pages


def test_links_and_includes_lead_somewhere() -> None:
    for page in [page for page in DOCS.rglob("*.md") if "_build" not in page.parts]:
        text = page.read_text()
        targets = re.findall(r"\]\(([^)#:]+\.md)", text) + re.findall(r"\{include\} (\S+)", text)
        for target in targets:
            assert (page.parent / target).is_file(), f"{page.relative_to(ROOT)}: {target}"


def test_equations_are_those_of_the_docstrings() -> None:
    equations = runpy.run_path(str(DOCS / "_ext" / "equations.py"))["EQUATIONS"]
    files = [*(ROOT / "bayesnn").rglob("*.py"), *(ROOT / "guides").rglob("*.py")]
    source = " ".join(" ".join(file.read_text().split()) for file in files)
    stale = [text for text in equations if " ".join(text.split()) not in source]
    assert not stale, f"no docstring has {stale}; change docs/_ext/equations.py with the docstring"


def test_the_readmes_figures_are_those_of_the_tables() -> None:
    def cells(table: str, row: str) -> list[str]:
        lines = (DOCS / "tables" / table).read_text(encoding="utf-8").splitlines()
        found, *_ = [line for line in lines if line.startswith(f"| {row} |")]
        return [cell.strip() for cell in found.strip("|").split("|")]

    def ratio(row: str, places: int) -> str:
        return f"{float(cells('core.md', row)[2]):.{places}f}"

    ours, pyros = "step, MeanField, MeanFieldELBO", "step, Pyro AutoNormal, Trace_ELBO"
    fit = cells("laplace.md", "LeNet: 500 random weights, full")
    lines = (DOCS / "tables" / "laplace.md").read_text(encoding="utf-8").splitlines()
    predictions = [line for line in lines if line.startswith("| LeNet: all, Kronecker |")][1].strip("|").split("|")
    (memory,) = [line for line in lines if "with posterior and 50 predictions" in line]
    members = cells("latents.md", "WRN-16-4: step, BatchEnsemble")
    lines = (DOCS / "tables" / "recast.md").read_text(encoding="utf-8").splitlines()
    (peer,) = [line for line in lines if line.startswith("| published design: quadrature")]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for claim in (
        f"train at {members[1]} plain steps on the same rows (torch-uncertainty: {members[3]})",
        f"has {peer.strip('|').split('|')[7].strip()} times the effective draws a second",
        f"costs {ratio(f'MLP: {ours}', 1)} plain Adam steps",
        f"and {ratio(f'LeNet: {ours}', 1)} on LeNet (Pyro's `AutoNormal`: {ratio(f'MLP: {pyros}', 1)} and "
        f"{ratio(f'LeNet: {pyros}', 1)})",
        f"cost {ratio('MLP: 32 x 1,000, predict, draws given', 2)} times 32 forward passes (Pyro's `Predictive`: "
        f"{ratio('MLP: 32 x 1,000, Pyro Predictive, draws given', 1)})",
        f"fitted in {float(fit[1]):.0f} epochs (there {float(fit[4]):.0f})",
        f"take {float(predictions[1]):.0f} forward passes (there {float(predictions[3]):.0f})",
        f"needs {float(memory.strip('|').split('|')[1].split()[0]):.1f} GB",
    ):
        assert claim in text, claim
