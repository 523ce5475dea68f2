"""The converter and k-hat from plain arrays, under the installed ArviZ and, where there is one,
under ArviZ 1.x.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import arviz_generations
import numpy as np
import pytest
import torch
from nets import mlp

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import Groups, from_groups, khat, to_arviz
from bayesnn.guides import MeanField

ROOT = Path(__file__).resolve().parents[2]
OTHER = Path(os.environ.get("BAYESNN_ARVIZ1_PYTHON", ROOT / ".venv-arviz1" / "bin" / "python"))
"""A Python >= 3.12 with ArviZ 1.x and without torch: `make arviz1` makes the default one."""


@pytest.mark.parametrize("check", arviz_generations.CHECKS, ids=lambda check: check.__name__)
def test_installed_arviz(check: Callable[[], None]) -> None:
    check()


@pytest.mark.skipif(not OTHER.exists(), reason="no Python with ArviZ 1.x; `make arviz1`, or set BAYESNN_ARVIZ1_PYTHON")
def test_arviz_1(tmp_path: Path) -> None:
    """The same checks there, and it reads what the installed ArviZ writes of a
    network, with the same LOO.
    """
    net = mlp(3, 2, 1)
    model = BNN(net, subset.last_layer(net), priors.normal(), likelihoods.normal(1.0), name="net")
    tree = to_arviz(
        MeanField(model), torch.randn(9, 3), torch.randn(9, 1), model=model, draws=200, probe=torch.randn(4, 3)
    )
    file = tmp_path / "net.nc"
    tree.to_netcdf(str(file))
    script = [str(OTHER), "-W", "error", str(ROOT / "tests" / "arviz_generations.py")]
    run = subprocess.run([*script, str(file), str(arviz_generations.elpd(tree))], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("ArviZ 1.")


def test_arviz_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"pip install 'bayesnn\[all\]'"):
        from_groups(Groups({}))


def test_import_is_light() -> None:
    """Importing the door imports neither ArviZ nor xarray nor matplotlib."""
    code = (
        "import sys, bayesnn.arviz; print([m for m in ('arviz', 'xarray', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"posterior": {"mu": np.zeros(5)}}, {}, r"'mu' of the group 'posterior' has shape \(5,\).*array\[None\]"),
        ({"posterior": {"a": np.zeros((1, 5)), "b": np.zeros((1, 4))}}, {}, r"'b'.*\[1, 4\], but 'a' has \[1, 5\]"),
        ({"posterior": {"a": np.zeros((1, 5))}, "sample_stats": {"lp": np.zeros((2, 5))}}, {}, "'lp'.*'sample_stats'"),
        ({"posterior": {"a/b": np.zeros((1, 5)), "a.b": np.zeros((1, 5))}}, {}, "two variables.*'a.b'"),
        (
            {"posterior": {"a": np.zeros((1, 5, 2)), "b": np.zeros((1, 5, 3))}},
            {"dims": {"a": ["g"], "b": ["g"]}},
            "axis 'g' has 2 entries in 'a' but 3 in 'b'",
        ),
        ({"posterior": {"a": np.zeros((1, 5, 2))}}, {"dims": {"a": ["g"]}, "coords": {"g": ["x"]}}, "1 labels for 'g'"),
        (
            {"posterior": {"a": np.zeros((1, 5, 2)), "g": np.zeros((1, 5))}},
            {"dims": {"a": ["g"]}},
            "'g' is a variable and also an axis",
        ),
    ],
)
def test_bad_groups(arrays: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_groups(Groups(arrays, **options))


def test_axis_called_as_its_variable() -> None:
    """A plate that has the name of the site inside it, or of an axis that ArviZ has for itself."""
    tree = from_groups(Groups({"posterior": {"g": np.zeros((1, 5, 2, 3))}}, dims={"g": ["g", "chain"]}))
    assert tree["posterior"]["g"].dims == ("chain", "draw", "g_dim", "chain_dim")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(5), np.zeros(5)), "5 draws are too few"),
        ((np.zeros(100), np.zeros(99)), r"\(100,\) and \(99,\)"),
        ((np.full(100, np.nan), np.zeros(100)), "finite"),
        (({"sample_stats": {"lp": np.zeros((1, 100))}},), "no sample_stats with lp and log_q"),
        ((np.zeros(100),), "no sample_stats"),
    ],
)
def test_bad_khat(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        khat(*arguments)
