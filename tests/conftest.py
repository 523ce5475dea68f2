"""Fixtures of all tests: seeds, one thread, Pyro's two parameter modes, and `untouched`."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib

import pyro
import pytest
import torch
from hypothesis import settings
from snapshot import unchanged
from torch import nn

torch.set_num_threads(1)
# The same examples at every run, and no time limits on a busy machine.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

Untouched = Callable[[nn.Module], AbstractContextManager[None]]


def pytest_configure(config: pytest.Config) -> None:
    """Networks with an LSTM and the like say that their derivatives are slow:
    tested on its own.
    """
    config.addinivalue_line("filterwarnings", "ignore::bayesnn.curvature.SlowFallback")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The same random numbers for every test (Python's, NumPy's, torch's), and
    nothing in Pyro's global store.
    """
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture(params=[False, True], ids=["global-store", "module-local"])
def parameter_mode(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Both of Pyro's modes for the parameters of guides."""
    with pyro.settings.context(module_local_params=request.param):
        yield request.param


@pytest.fixture
def untouched() -> Untouched:
    """`with untouched(net): ...` fails where anything of the network is written inside."""
    return unchanged
