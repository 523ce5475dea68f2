"""RECaST's summary: its blocks, its numbers, and what it says in words."""

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.guides import RECaSTGuide, recast_nuts
from bayesnn.guides.recast import CorrectedDraws
from bayesnn.models import recast
from bayesnn.models.recast import NormalEffect, RECaST
from bayesnn.transfer import recast_summary, without_source
from bayesnn.transfer.summary import RECaSTSummary


def simulated(n: int, gamma: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    f = 2 * torch.randn(n, dtype=torch.double, generator=generator)
    beta = 0.9 + gamma * torch.empty(n, dtype=torch.double).cauchy_(generator=generator)
    return f, beta * f + 0.5 * torch.randn(n, dtype=torch.double, generator=generator)


def around(values: dict[str, tuple[float, float]], model: RECaST | None = None, *, khat: float = 0.1) -> CorrectedDraws:
    """Normal draws of this mean and standard deviation."""
    z = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.005, 0.995, 100)).double()
    draws = {name: mean + sd * z for name, (mean, sd) in values.items()}
    return CorrectedDraws(model or recast.continuous(None), draws, khat, 80.0)


def notes(summary: RECaSTSummary) -> str:
    return " ".join(summary.notes)


def test_blocks_and_numbers() -> None:
    f, y = simulated(200, 0.3)
    model = recast.continuous(None)
    corrected = RECaSTGuide(model).fit(f, y).corrected(f, y, 500)
    summary = recast_summary(corrected, f, y)
    text = str(summary)
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Call:", "Data:", "Source:", "Priors:", "Posterior:", "Fit information:", "Notes:"]
    assert "target examples: 200" in text
    assert f"k-hat: {corrected.khat:.4g}" in text
    assert f"effective proposals: {corrected.effective:.0f}" in text
    assert "log_gamma ~ Normal(loc: 0.0, scale: 3.0)" in text
    frame = summary.to_dataframe().set_index("quantity")
    assert list(frame.index) == ["delta", "log_gamma", "log_sigma", "gamma", "sigma"]
    assert frame.loc["delta", "mean"] == pytest.approx(float(corrected.draws["delta"].mean()))
    assert frame.loc["gamma", "50%"] == pytest.approx(float(corrected.draws["log_gamma"].exp().quantile(0.5)))
    assert "gamma is" not in notes(summary)  # 200 examples of the model itself identify it
    assert "no mean or variance" in notes(summary)


def test_leave_one_out_of_a_point_posterior_is_its_log_likelihood() -> None:
    """Draws that are all but equal: sum of log densities, no influential target."""
    f, y = simulated(30, 0.3)
    model = recast.continuous(None)
    point = around({"delta": (0.9, 1e-9), "log_gamma": (-1.2, 1e-9), "log_sigma": (-0.7, 1e-9)})
    outputs = model.outputs_at({name: value[50] for name, value in point.draws.items()}, f)
    expected = float(model.likelihood(outputs).log_prob(y).sum())
    summary = recast_summary(point, f, y)
    found = dict(summary.fit.rows)
    assert found["elpd_loo"] == pytest.approx(expected, rel=1e-6)
    alone = float(without_source(y).sum())
    assert found["elpd_loo minus that without the source"] == pytest.approx(expected - alone, rel=1e-6)
    assert f"elpd_loo: {expected:.4g}" in str(summary)


def test_a_markov_chain_has_its_diagnostics() -> None:
    f, y = simulated(30, 0.3)
    model = recast.binary(None, name="m")
    run = recast_nuts(model, f, (y > 0).double(), draws=30, warmup=50, chains=1, progress=False)
    summary = recast_summary(run, f, (y > 0).double(), model=model)
    assert summary.posterior.columns[-4:] == ("mcse", "ess_bulk", "ess_tail", "r_hat")
    assert summary.posterior.column("quantity") == ["delta", "log_gamma", "gamma"]
    arviz = pytest.importorskip("arviz")
    chains = run.get_samples(group_by_chain=True)["m.delta"].numpy()
    expected = [float(arviz.ess(chains, method=method)) for method in ("bulk", "tail")]
    (row,) = summary.posterior.where(quantity="delta").rows
    assert row[-3:-1] == pytest.approx(expected)
    assert row[-4] == pytest.approx(float(arviz.mcse(chains)))
    assert row[-1] == pytest.approx(float(arviz.rhat(chains.reshape(2, 15))))
    assert f"inference: {type(run.kernel).__name__}, 1 chain of 30 draws" in str(summary)
    assert "warm-up steps: 50" in str(summary)
    assert dict(summary.fit.rows)["divergences"] == sum(len(at) for at in run.diagnostics()["divergences"].values())
    assert "One chain only" in notes(summary)
    assert "effective draws" in notes(summary)  # 30 draws cannot be 400


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"log_gamma": (0.2, 2.9)}, "gamma is at its prior"),
        ({"log_gamma": (-5.0, 1.5)}, "gamma is bounded from above only"),
        ({"log_gamma": (1.0, 1.5)}, "gamma is poorly identified"),
        ({"delta": (0.1, 0.2)}, "delta may be zero"),
        ({"delta": (-1.0, 0.2)}, "this target reverses the source"),
    ],
)
def test_what_it_says(values: dict[str, tuple[float, float]], said: str) -> None:
    f, y = simulated(30, 0.3)
    usual = {"delta": (0.9, 0.1), "log_gamma": (-1.2, 0.2), "log_sigma": (-0.7, 0.1)}
    assert said not in notes(recast_summary(around(usual), f, y))
    assert said in notes(recast_summary(around({**usual, **values}), f, y))


def test_every_table_is_a_data_frame() -> None:
    f, y = simulated(30, 0.3)
    values = {"delta": (0.9, 0.1), "log_gamma": (-1.2, 0.2), "log_sigma": (-0.7, 0.1)}
    summary = recast_summary(around(values), f, y)
    data = summary.data.to_dataframe().set_index("quantity")["value"]
    assert data["target examples"] == 30
    assert data["correlation of f and y"] == pytest.approx(float(torch.stack([f, y]).corrcoef()[0, 1]))
    priors = summary.priors.to_dataframe().set_index("quantity")
    assert priors.loc["delta", "95%"] == pytest.approx(1 + 20 * 1.6448536, rel=1e-6)
    assert summary.fit.to_dataframe().set_index("quantity").loc["k-hat", "value"] == 0.1
    assert len(summary.posterior.to_dataframe()) == len(summary.to_dataframe()) == 5
    mixed = {"log_gamma": dist.Laplace(0.0, 3.0), "delta": dist.SoftLaplace(1.0, 2.0), "log_sigma": Nameless(0.0, 1.0)}
    found = recast_summary(around(values, recast.continuous(None, priors=mixed)), f, y).priors.to_dataframe()
    assert found["50%"].isna().tolist() == [False, False, True]


OTHER = {"delta": dist.Normal(0.0, 1.0)}


class Nameless(dist.Normal):
    """A family without quantiles."""

    def icdf(self, value: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("noise", [True, False])
def test_a_source_that_does_not_help(*, noise: bool) -> None:
    """Predictions of the wrong sign that are believed, and some that have
    nothing to do with y and are not.
    """
    f, y = simulated(60, 0.1)
    model = recast.continuous(None) if noise else recast.binary(None)
    y = y if noise else (y > 0).double()
    sigma = {"log_sigma": (-0.7, 0.1)} if noise else {}
    useful = around({"delta": (0.9 if noise else 2.0, 0.1), "log_gamma": (-2.0, 0.2), **sigma}, model)
    assert "source" not in notes(recast_summary(useful, f, y)).replace("Cauchy", "")
    assert "Negative transfer" in notes(recast_summary(useful, -f, y))
    apart = f[torch.randperm(60, generator=torch.Generator().manual_seed(3))]
    wide = {"log_sigma": (float(y.std().log()), 0.1)} if noise else {}
    ignored = around({"delta": (0.0, 0.01), "log_gamma": (-6.0, 0.2), **wide}, model)
    assert "The source is not shown to help" in notes(recast_summary(ignored, apart, y))


def test_diverging_chains_are_said() -> None:
    f, y = simulated(30, 0.3)
    model = recast.continuous(None)
    run = recast_nuts(model, f, y, draws=20, warmup=20, chains=1, progress=False)
    run.diagnostics = lambda: {"divergences": {"chain 0": [3, 7]}}  # type: ignore[method-assign]
    summary = recast_summary(run, f, y, model=model)
    assert dict(summary.fit.rows)["divergences"] == 2
    assert "2 trajectories diverged" in notes(summary)


def test_a_bad_khat_is_said() -> None:
    f, y = simulated(30, 0.3)
    values = {"delta": (0.9, 0.1), "log_gamma": (-1.2, 0.2), "log_sigma": (-0.7, 0.1)}
    summary = recast_summary(around(values, recast.continuous(None, effect=NormalEffect()), khat=0.8), f, y)
    assert "use recast_nuts" in notes(summary)
    assert "Cauchy" not in notes(summary)


def test_the_source_is_described() -> None:
    net = nn.Sequential(nn.Linear(1, 1)).double().eval().requires_grad_(requires_grad=False)
    f, y = simulated(30, 0.3)
    draws = around({"delta": (0.9, 0.1), "log_gamma": (-1.2, 0.2)}).draws
    model: RECaST = recast.binary(net, link=lambda p: p)
    text = str(recast_summary(draws, f.unsqueeze(1), (y > 0).double(), model=model))
    assert "recast.binary(source=Sequential, effect=CauchyEffect())" in text
    assert "Sequential, frozen, 2 weights; logits by link" in text
    assert "100 draws, of which nothing else is known" in text


def test_labels_and_uncertain_sources() -> None:
    f, y = simulated(30, 0.3)
    draws = around({"delta": (0.9, 0.1), "log_gamma": (-1.2, 0.2)}).draws
    logits = torch.stack([f, -f, 0 * f], 1)
    summary = recast_summary(draws, logits, (y > 0).long(), model=recast.categorical(None))
    assert summary.call == "recast.categorical(source=None, effect=CauchyEffect())"
    data = dict(summary.data.rows)
    assert data["response"] == f"labels, {int((y <= 0).sum())}, {int((y > 0).sum())} of classes 0, 1, ..."
    alone = float(without_source((y > 0).long(), classes=3).sum())
    fit = dict(summary.fit.rows)
    assert fit["elpd_loo minus that without the source"] == pytest.approx(fit["elpd_loo"] - alone)
    source = recast.SourceDraws(lambda x: torch.stack([x, 1.2 * x]), count=2)
    draws["source"] = torch.arange(100) % 2
    text = str(recast_summary(draws, f, (y > 0).double(), model=recast.binary(source)))
    assert "SourceDraws, frozen, 2 draws; logits" in text
    assert "correlation" not in text


def test_what_is_refused() -> None:
    f, y = simulated(30, 0.3)
    model = recast.continuous(None)
    with pytest.raises(TypeError, match="must be a RECaST"):
        recast_summary({}, f, y, model=nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="recast_summary: the posterior comes first, but a RECaST is a model"):
        recast_summary(model, {"delta": torch.ones(9)}, f)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"recast_summary: this CorrectedDraws is of another model: its prior"):
        recast_summary(around({"delta": (0.9, 0.1)}), f, y, model=recast.continuous(None, priors=OTHER))
    with pytest.raises(TypeError, match="RECaSTGuide"):
        recast_summary(RECaSTGuide(model), f, y, model=model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no draws of 'log_gamma'"):
        recast_summary({"delta": torch.ones(9)}, f, y, model=model)
    with pytest.raises(ValueError, match="at least 3"):
        recast_summary(around({"delta": (0.9, 0.1)}), f[:2], y[:2])
