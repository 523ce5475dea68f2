"""The examples in docstrings run, each by itself, and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import bayesnn

MODULES = ["bayesnn", *(module.name for module in pkgutil.walk_packages(bayesnn.__path__, "bayesnn."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(module, optionflags=options)
    assert failed == 0
