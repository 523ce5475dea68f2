"""The public names, read from every `__init__.py`, and the one namespace under
which the reference has each.
"""

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "bayesnn"
Origin = tuple[str, str]  # the module that defines a name, and its name there


@cache
def exports(namespace: str) -> dict[str, Origin]:
    """{name: where it is imported from} of a package below bayesnn.

    What a package imports from itself is a module: a namespace, and no name.
    """
    tree = ast.parse((_folder(namespace) / "__init__.py").read_text())
    return {
        alias.asname: (node.module.removeprefix("bayesnn."), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module != f"bayesnn.{namespace}"
        for alias in node.names
        if alias.asname
    }


def public_names() -> dict[str, dict[str, str]]:
    """{name: {namespace that exports it: namespace under which the reference has it}}.

    What a room's face exports out of a family is documented once, under the face.
    """
    names: dict[str, dict[str, str]] = {}
    faces: dict[tuple[str, Origin], str] = {}
    for namespace in sorted(namespaces(), key=lambda dotted: dotted.count(".")):
        room = namespace.split(".")[0]
        for name in exports(namespace):
            face = faces.setdefault((room, _origin(namespace, name)), namespace)
            names.setdefault(name, {})[namespace] = face
    return names


def namespaces() -> list[str]:
    """The packages below bayesnn, `guides.laplace` among them."""
    return sorted(".".join(file.parent.relative_to(PACKAGE).parts) for file in PACKAGE.glob("*/**/__init__.py"))


def _origin(namespace: str, name: str) -> Origin:
    """Where a name is defined, through the packages that hand it on."""
    while (_folder(namespace) / "__init__.py").is_file() and name in exports(namespace):
        namespace, name = exports(namespace)[name]
    return namespace, name


def _folder(namespace: str) -> Path:
    return PACKAGE.joinpath(*namespace.split("."))
