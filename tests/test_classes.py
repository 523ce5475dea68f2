"""The rule on the size of a class: at most ten public methods and properties of its own."""

import importlib
import inspect
from functools import cached_property

import pytest
from test_packaging import ROOT, SOURCE, python_files

MOST = 10
PROTOCOLS = {
    # of models
    "likelihood",
    "sites",
    "outputs",
    "outputs_of_chunks",
    "sample",
    # of guides
    "model",
    "loc",
    "output_distribution",
    # of torch's modules
    "forward",
    "get_extra_state",
    "set_extra_state",
}
"""What a protocol asks for, without a base class that has it, does not count."""


def classes() -> dict[str, type]:
    found = {}
    for path in python_files(*SOURCE):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        name = ".".join(("bayesnn", *parts) if parts[0] == "guides" else parts)
        module = importlib.import_module(name)
        for kind in vars(module).values():
            if inspect.isclass(kind) and kind.__module__ == name:
                found[f"{name}.{kind.__qualname__}"] = kind
    return found


def own(kind: type) -> list[str]:
    """Public methods and properties that no base class has already."""
    inherited = {name for base in kind.__mro__[1:] for name in vars(base)}
    callables = (property, cached_property, classmethod, staticmethod)
    return [
        name
        for name, member in vars(kind).items()
        if not name.startswith("_")
        and name not in inherited | PROTOCOLS
        and (inspect.isfunction(member) or isinstance(member, callables))
    ]


CLASSES = classes()


def test_all_are_seen() -> None:
    assert len(CLASSES) > 100
    assert "bayesnn.guides.laplace.guide.Laplace" in CLASSES


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_few_public_members(name: str) -> None:
    members = own(CLASSES[name])
    assert len(members) <= MOST, f"{name} has {len(members)}: {', '.join(members)}"


def test_what_counts() -> None:
    class Base:
        def known(self) -> None: ...

    class Kind(Base):
        value = 1

        def known(self) -> None: ...

        def forward(self) -> None: ...

        def method(self) -> None: ...

        @property
        def attribute(self) -> None: ...

        @cached_property
        def held(self) -> None: ...

        @classmethod
        def make(cls) -> None: ...

        @staticmethod
        def beside() -> None: ...

        def _private(self) -> None: ...

    assert own(Kind) == ["method", "attribute", "held", "make", "beside"]
