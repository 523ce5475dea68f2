"""Lines of prose end before column 100: docstrings, comments and Markdown."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 99
PYTHON = sorted(
    file
    for folder in ("bayesnn", "guides", "examples", "tests", "docs")
    for file in (ROOT / folder).rglob("*.py")
    if "_build" not in file.parts and file.relative_to(ROOT).parts[:2] != ("bayesnn", "guides")
)
MARKDOWN = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(f for f in (ROOT / "docs").rglob("*.md") if not {"_build", "tables"} & set(f.relative_to(ROOT).parts)),
]
INSTRUCTION = re.compile(r"# ?(type:|noqa|fmt:|pragma|mypy:)")


def docstring_lines(source: str) -> Iterator[int]:
    """The rows, from 0, of docstrings (those of attributes too), without doctests."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            doctest = False
            for row in range(node.lineno - 1, node.end_lineno or node.lineno):
                text = lines[row].strip()
                doctest = bool(text) and (doctest or text.startswith(">>>"))
                if not doctest:
                    yield row


def comment_lines(source: str) -> Iterator[int]:
    """The rows, from 0, with a comment that is written for people."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not INSTRUCTION.match(token.string):
            yield token.start[0] - 1


def paragraph_lines(source: str) -> Iterator[int]:
    """The rows, from 0, of Markdown's prose: no front matter, code, table,
    formula, link or HTML.
    """
    fence = end = ""
    may_indent = False  # four spaces make code after an empty line, or after code
    for row, line in enumerate(source.splitlines()):
        text = line.strip()
        may_indent = not text or (may_indent and line.startswith("    "))
        if text and may_indent:
            continue
        if end:  # inside front matter or a display formula
            end = "" if text.endswith(end) else end
        elif fence:
            fence = "" if text.startswith(fence) else fence
        elif mark := re.match(r"`{3,}|~{3,}", text):
            fence = mark[0]
        elif row == 0 and text == "---":
            end = "---"
        elif text.startswith("$$"):
            end = "" if re.search(r"\S\$\$[.,]?$", text[2:]) else "$$"
        elif not text.startswith(("|", "<")) and not re.search(r"\]\(\S+\)\S*$", text):
            yield row


def too_long(source: str, rows: Iterator[int]) -> list[str]:
    lines = source.splitlines()
    return [f"line {row + 1}: {lines[row]}" for row in sorted(set(rows)) if len(lines[row]) > COLUMNS]


@pytest.mark.parametrize("file", PYTHON, ids=lambda file: str(file.relative_to(ROOT)))
def test_docstrings_and_comments(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert not too_long(source, docstring_lines(source)) + too_long(source, comment_lines(source))


@pytest.mark.parametrize("file", MARKDOWN, ids=lambda file: str(file.relative_to(ROOT)))
def test_markdown(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert not too_long(source, paragraph_lines(source))


LONG = "word " * 20 + "end"


def test_long_prose_is_seen() -> None:
    source = f'"""{LONG}\n\n>>> {LONG}\n{LONG}\n\n{LONG}\n"""\nx = 1  # {LONG}\n# noqa {LONG}\n'
    assert [*docstring_lines(source)] == [0, 1, 4, 5, 6]
    assert [*comment_lines(source)] == [7]
    assert len(too_long(source, docstring_lines(source))) == 2
    page = f"---\n{LONG}\n---\n{LONG}\n```\n{LONG}\n```\n$$x$$\n{LONG}\n$$\n{LONG}$$\n| {LONG} |\n"
    assert [*paragraph_lines(page)] == [3, 8]
