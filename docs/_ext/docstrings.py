"""Docstrings of the source, which are Markdown in all but name, as reStructuredText for autodoc.

Code becomes code, linked where it names something public; equations become LaTeX where
`equations.py` has them; "Args:" and its like become fields; what reStructuredText would take for
marks of its own is escaped.
"""

import importlib
import re
from textwrap import dedent, indent

from equations import EQUATIONS
from namespaces import namespaces, public_names

PARTS = re.compile(r"(?ms)(?P<doctest>^[ \t]*>>> .*?(?=\n[ \t]*\n|\Z))|(?P<code>``.+?``|`[^`]+`)")
BOLD = r"\*\*[^*\s](?:[^*]*[^*\s])?\*\*"
EMPHASIS = r"(?<![\w*])\*[^*\s](?:[^*]*[^*\s])?\*(?![\w*])"
MARKED = re.compile(rf"({BOLD}|{EMPHASIS})")
SHAPE = re.compile(r"(?<!\w)\[\*?[a-z]+(?: [-+*/] \d)?(?:, (?:\*?[a-z]+(?: [-+*/] \d)?|\.\.\.|\d+))*\]")
DENSITY = re.compile(r"(?<!\w)(log )?([pq]\([a-z](?:_[a-z])?(?:(?: \||,) [a-z](?:_[a-z])?)*\))")
SYMBOL = re.compile(r"(?<!\w)(?P<letter>[A-Za-z])(?:_(?P<index>[A-Za-z0-9])|(?P<star>\*))(?![\w*])")
SECTION = re.compile(r"(?m)^(Args|Attributes|Raises|Returns|Example):\n((?:(?:[ \t]+.*)?(?:\n|\Z))*)")
FIELDS = {"Args": "param ", "Attributes": "var ", "Raises": "raises ", "Returns": "returns"}


NAMES, NAMESPACES = public_names(), namespaces()
LATEX = {" ".join(text.split()): latex for text, latex in EQUATIONS.items()}
EQUATION = re.compile("|".join(re.escape(t).replace(r"\ ", r"\s+") for t in sorted(LATEX, key=len, reverse=True)))


def to_rst(text: str, owner: str = "") -> str:
    """One docstring; `owner` is the dotted name of what it documents."""
    pieces, end = [], 0
    for match in PARTS.finditer(text):
        pieces.append(_prose(text[end : match.start()]))
        pieces.append(dedent(match["doctest"]) if match["doctest"] else _code(match["code"].strip("`"), owner))
        end = match.end()
    return SECTION.sub(_section, "".join([*pieces, _prose(text[end:])]))


def _code(text: str, owner: str) -> str:
    *path, name = text.removesuffix("()").removeprefix("bayesnn.").split(".")
    namespace = _namespace(".".join(path), name, owner)
    target = f"bayesnn.{namespace}.{name}"
    if namespace is None or f"{owner}.".startswith(f"{target}.") or (not path and name in _members(owner)):
        return f"``{text}``"
    return f":py:obj:`{text} <{target}>`"


def _namespace(path: str, name: str, owner: str) -> str | None:
    """Under which namespace the reference has a name; None where it is not
    public, or means several.
    """
    exporters = NAMES.get(name, {})
    if path:
        meant = {face for exporter, face in exporters.items() if f".{exporter}".endswith(f".{path}")}
    else:  # the owner's own family goes before its room, and its room before all others
        own = _own_namespace(owner)
        near = (
            {face for exporter, face in exporters.items() if exporter == own},
            {face for face in exporters.values() if face.split(".")[0] == own.split(".")[0]},
            set(exporters.values()),
        )
        meant = next((faces for faces in near if faces), set())
    return meant.pop() if len(meant) == 1 else None


def _own_namespace(owner: str) -> str:
    """The package below bayesnn in which a dotted name lies: guides.laplace of
    bayesnn.guides.laplace.exact.
    """
    own = owner.removeprefix("bayesnn.")
    return max((space for space in NAMESPACES if f"{own}.".startswith(f"{space}.")), key=len, default="")


def _members(owner: str) -> set[str]:
    """Names that a class's own docstring, or its method's, means as its own."""
    namespace = _own_namespace(owner)
    name = owner.removeprefix(f"bayesnn.{namespace}").lstrip(".").split(".")[0]
    documented = getattr(importlib.import_module(f"bayesnn.{namespace}"), name, None) if namespace and name else None
    return set(dir(documented)) if isinstance(documented, type) else set()


def _prose(text: str) -> str:
    pieces, end = [], 0
    for match in EQUATION.finditer(text):
        pieces.append(_escaped(text[end : match.start()]))
        pieces.append(rf"\ :math:`{LATEX[' '.join(match[0].split())]}`\ ")
        end = match.end()
    return "".join([*pieces, _escaped(text[end:])])


def _escaped(text: str) -> str:
    for pattern, marked in ((SHAPE, _shape), (DENSITY, _density), (SYMBOL, _symbol)):
        if match := pattern.search(text):
            return _escaped(text[: match.start()]) + marked(match) + _escaped(text[match.end() :])
    parts = MARKED.split(text)
    parts[::2] = [re.sub(r"[\\*|]|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def _shape(match: re.Match[str]) -> str:
    return rf"\ ``{match[0]}``\ "


def _density(match: re.Match[str]) -> str:
    density = match[2].replace("|", r"\mid")
    return rf"\ :math:`{chr(92) + 'log ' if match[1] else ''}{density}`\ "


def _symbol(match: re.Match[str]) -> str:
    return rf"\ :math:`{match['letter']}{'^*' if match['star'] else '_' + match['index']}`\ "


def _section(match: re.Match[str]) -> str:
    field, body = FIELDS.get(match[1]), dedent(match[2]).strip("\n")
    if field is None:
        return f"{body}\n\n"
    if field == "returns":
        return f"\n:returns: {indent(body, '    ').lstrip()}\n\n"
    # Items are the lines without indentation; what is indented goes on with them.
    items = re.sub(r"(?m)^(\S+?(?:, \S+?)*): ", rf":{field}\1: ", body)
    return f"\n{items}\n\n"


def _process(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = to_rst("\n".join(lines), name).split("\n")


def setup(app):
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
