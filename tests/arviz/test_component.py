"""The example's model, two networks and random intercepts in one Pyro model, through NUTS and two
guides to ArviZ.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import arviz
import numpy as np
import pytest
import torch
from arviz_generations import elpd
from pyro import distributions as dist
from pyro import poutine

from examples import hierarchical_regression as example
from examples.studies.hierarchical_regression.harvests import simulate


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """main() with these arguments."""
    monkeypatch.setenv("SMOKE", "1")

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["hierarchical_regression", *arguments])
        example.main()

    return run


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of few draws, by ArviZ
@pytest.mark.filterwarnings("ignore:num_chains")
def test_whole_example(call: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("--out", str(tmp_path), "--seed", "2")
    names = ["full_rank.nc", "mean_field.nc", "nuts.nc"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", *names]
    for name in names:
        tree = arviz.from_netcdf(str(tmp_path / name))
        posterior, stats = tree["posterior"], tree["sample_stats"]
        assert {"weather.2.weight", "response.2.weight", "spread", "noise", "effect", "gain"} <= set(
            posterior.data_vars
        )
        assert posterior.sizes["chain"] == 2
        assert posterior["effect"].dims == ("chain", "draw", "fields")
        assert posterior["field"].sel(fields="field 3").shape == (2, 30)
        assert tree["log_likelihood"]["harvest"].dims == ("chain", "draw", "plots")
        assert set(tree["constant_data"].data_vars) == {"rain", "dose", "field_data"}
        assert ("log_q" in stats) == (name != "nuts.nc")
        assert ("diverging" in stats) == (name == "nuts.nc")
        assert np.isfinite(elpd(tree))
    out = capsys.readouterr().out
    assert out.count("elpd_loo") == 3
    assert out.count("k-hat") == 2


def test_densities_of_the_component_model() -> None:
    """Log likelihood and log joint of the composed model by hand, from the exported draws."""
    data, _ = simulate(torch.Generator().manual_seed(0))
    rain, dose, field, harvest = data
    model = example.Harvest()
    sites = {"spread": torch.rand(3) + 0.1, "noise": torch.rand(3) + 0.1, "effect": torch.randn(3, 8)}
    sites |= {f"{name}.2.weight": torch.randn(3, 1, 8) for name in ("weather", "response")}
    tree = example.diagnose(sites, model, data, 3)
    for s in range(3):
        values = {name: value[s] for name, value in sites.items()}
        mean = model.weather.outputs(values, rain) + model.response.outputs(values, dose)
        density = dist.Normal(mean.squeeze(-1) + values["effect"][field], values["noise"]).log_prob(harvest).detach()
        np.testing.assert_allclose(tree["log_likelihood"]["harvest"][0, s], density, rtol=1e-4, atol=1e-4)
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace(*data)
        assert float(tree["sample_stats"]["lp"][0, s]) == pytest.approx(trace.log_prob_sum().item(), rel=1e-4)


@pytest.mark.parametrize("arguments", [("--draws", "3"), ("--draws", "many"), ("--seed", "x"), ("--help",)])
def test_options(call: Callable[..., None], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(*arguments)
    shown = capsys.readouterr()
    assert arguments[0] in shown.out + shown.err
    assert ended.value.code == (0 if arguments == ("--help",) else 2)
