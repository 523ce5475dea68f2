"""What must hold under every ArviZ, from plain arrays: run by the suite, and as a script where
torch is not installed.

`python tests/arviz_generations.py [NETCDF ELPD]` also reads a file that another ArviZ wrote.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

CHAINS, DRAWS, DATA = 2, 200, 12


def load(name: str) -> ModuleType:
    """A file of bayesnn/arviz/ by its path, without importing the package."""
    path = Path(__file__).resolve().parents[1] / "bayesnn" / "arviz" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_{name}_alone", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def groups():
    """Draws of a normal mean: posterior, log likelihood, densities, and a group
    that ArviZ does not know.
    """
    random = np.random.default_rng(0)
    y = random.normal(1.0, 1.0, DATA)
    mean, sd = y.sum() / (DATA + 1), (DATA + 1) ** -0.5
    mu = random.normal(mean, sd, (CHAINS, DRAWS))
    residual = y - mu[..., None]
    likelihood = -0.5 * residual**2 - 0.5 * np.log(2 * np.pi)
    log_p = likelihood.sum(-1) - 0.5 * mu**2 - 0.5 * np.log(2 * np.pi)
    log_q = -0.5 * ((mu - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)
    return load("convert").Groups(
        {
            "posterior": {"mu": mu, "net/weight": random.normal(size=(CHAINS, DRAWS, 3))},
            "log_likelihood": {"y": likelihood},
            "posterior_predictive": {"y": mu[..., None] + random.normal(size=(CHAINS, DRAWS, DATA))},
            "log_prior": {"mu": -0.5 * mu**2},
            "sample_stats": {"lp": log_p, "log_q": log_q, "diverging": np.zeros((CHAINS, DRAWS), dtype=bool)},
            "prior": {"mu": random.normal(size=(1, 30))},
            "observed_data": {"y": y},
            "metadata": {"random_shape": np.array(["()", "(3,)"])},
        },
        dims={"y": ["data"], "net/weight": ["unit"]},
        coords={"unit": ["a", "b", "c"]},
        attrs={"inference_library": "bayesnn", "seed": 3},
    )


def first_generation():
    import arviz

    return arviz.__version__.startswith("0.")


def container_type():
    import arviz
    import xarray

    return arviz.InferenceData if first_generation() else xarray.DataTree


def elpd(tree):
    import arviz

    result = arviz.loo(tree)
    return float(result.elpd_loo if first_generation() else result.elpd)


def check_container():
    given = groups()
    tree = load("convert").from_groups(given)
    assert isinstance(tree, container_type())
    for group, arrays in given.arrays.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(np.asarray(tree[group][name.replace("/", ".")]), values)
    assert tree["posterior"]["net.weight"].dims == ("chain", "draw", "unit")
    assert list(np.asarray(tree["posterior"]["unit"])) == ["a", "b", "c"]
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "data")
    assert tree["observed_data"]["y"].dims == ("data",)
    assert tree.attrs["inference_library"] == tree["posterior"].attrs["inference_library"] == "bayesnn"
    assert "created_at" in tree["posterior"].attrs


def check_netcdf():
    import arviz

    given = groups()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "groups.nc")
        load("convert").from_groups(given).to_netcdf(path)
        tree = arviz.from_netcdf(path)
        for group, arrays in given.arrays.items():
            for name, values in arrays.items():
                np.testing.assert_array_equal(np.asarray(tree[group][name.replace("/", ".")]), values)
        if hasattr(tree, "close"):
            tree.close()
    assert tree.attrs["seed"] == 3


def check_statistics():
    import arviz

    tree = load("convert").from_groups(groups())
    table = arviz.summary(tree, round_to="none")
    assert abs(table.loc["mu", "r_hat"] - 1) < 0.05
    assert "net.weight[a]" in table.index
    result = arviz.loo(tree)
    assert result.n_data_points == DATA
    assert not result.warning
    assert arviz.rhat(tree)["mu"] < 1.05
    assert np.isfinite(arviz.ess(tree)["mu"])
    if first_generation():
        pit = arviz.loo_pit(tree, y="y")
    else:
        pit = arviz.loo_pit(tree)["y"]
        stats = tree["sample_stats"]
        corrected = arviz.loo_approximate_posterior(tree, log_p=stats["lp"], log_q=stats["log_q"])
        # the draws are the posterior's already
        assert abs(corrected.elpd - result.elpd) < result.se
    assert pit.shape == (DATA,)


def check_leave_one_out():
    """Pareto-smoothed weights of single data give the densities and transforms
    that ArviZ finds.
    """
    import arviz

    tree = load("convert").from_groups(groups())
    arrays = groups().arrays
    density = arrays["log_likelihood"]["y"].reshape(-1, DATA)
    weights = np.stack([load("khat").pareto_smoothed(-one)[0] for one in density.T], 1)
    assert np.allclose(np.exp(weights).sum(0), 1)
    found = np.log(np.exp(weights + density).sum(0)).sum()
    assert abs(found - elpd(tree)) < 0.01
    below = arrays["observed_data"]["y"] >= arrays["posterior_predictive"]["y"].reshape(-1, DATA)
    theirs = arviz.loo_pit(tree, **({"y": "y"} if first_generation() else {}))
    theirs = np.asarray(theirs if first_generation() else theirs["y"])
    assert np.abs((np.exp(weights) * below).sum(0) - theirs).max() < 0.01


def check_khat():
    """A guide equal to the posterior; one that is too narrow in heavy tails; and from the
    container itself.
    """
    khat = load("khat").khat
    tree = load("convert").from_groups(groups())
    assert khat(tree).shape == (CHAINS,)
    assert (khat(tree) == -np.inf).all()
    random = np.random.default_rng(1)
    wide, narrow = random.normal(0, 1.2, 4000), random.normal(0, 0.4, 4000)
    assert khat(-0.5 * wide**2, -0.5 * (wide / 1.2) ** 2) < 0.3
    assert khat(-0.5 * narrow**2, -0.5 * (narrow / 0.4) ** 2) > 0.7


CHECKS = [check_container, check_netcdf, check_statistics, check_leave_one_out, check_khat]


def main():
    import arviz

    for check in CHECKS:
        check()
    assert "torch" not in sys.modules
    if len(sys.argv) > 1:
        tree = arviz.from_netcdf(sys.argv[1])
        here, there = elpd(tree), float(sys.argv[2])
        assert abs(here - there) < 1e-4 * abs(there), (here, there)
        assert "random_shape" in tree["metadata"]
    print(f"ArviZ {arviz.__version__}: {len(CHECKS)} checks passed")


if __name__ == "__main__":
    main()
