"""RECaST's summary: its blocks, its numbers, and what it says in words."""

import pytest
import torch
from torch import Tensor, nn

from bayesnn.guides import CorrectedDraws, RECaSTGuide, recast_nuts
from bayesnn.models import recast
from bayesnn.models.recast import NormalEffect, RECaST
from bayesnn.transfer import recast_summary
from bayesnn.transfer.summary import RECaSTSummary


def simulated(n: int, gamma: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    f = 2 * torch.randn(n, dtype=torch.double, generator=generator)
    beta = 0.9 + gamma * torch.empty(n, dtype=torch.double).cauchy_(generator=generator)
    return f, beta * f + 0.5 * torch.randn(n, dtype=torch.double, generator=generator)


def around(values: dict[str, tuple[float, float]], *, khat: float = 0.1) -> CorrectedDraws:
    """Normal draws of this mean and standard deviation."""
    z = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.005, 0.995, 100)).double()
    return CorrectedDraws({name: mean + sd * z for name, (mean, sd) in values.items()}, khat, 80.0)


def notes(summary: RECaSTSummary) -> str:
    return " ".join(summary.notes)


def test_blocks_and_numbers() -> None:
    f, y = simulated(200, 0.3)
    model = recast.continuous(None)
    corrected = RECaSTGuide(model).fit(f, y).corrected(f, y, 500)
    summary = recast_summary(model, corrected, f, y)
    text = str(summary)
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Call:", "Data:", "Source:", "Priors:", "Posterior:", "Fit information:", "Notes:"]
    assert "200 target examples" in text
    assert f"k-hat {corrected.khat:.2f}" in text
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
    assert f"elpd_loo {expected:.1f} nats" in str(recast_summary(model, point, f, y))


def test_a_markov_chain_has_its_diagnostics() -> None:
    f, y = simulated(30, 0.3)
    model = recast.binary(None, name="m")
    run = recast_nuts(model, f, (y > 0).double(), draws=30, warmup=50, chains=1, progress=False)
    summary = recast_summary(model, run, f, (y > 0).double())
    assert summary.posterior.columns[-2:] == ("ess", "r_hat")
    assert summary.posterior.column("quantity") == ["delta", "log_gamma", "gamma"]
    assert "NUTS, 1 chain of 30 draws" in str(summary)
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
    assert said not in notes(recast_summary(recast.continuous(None), around(usual), f, y))
    assert said in notes(recast_summary(recast.continuous(None), around({**usual, **values}), f, y))


def test_a_bad_khat_is_said() -> None:
    f, y = simulated(30, 0.3)
    bad = around({"delta": (0.9, 0.1), "log_gamma": (-1.2, 0.2), "log_sigma": (-0.7, 0.1)}, khat=0.8)
    summary = recast_summary(recast.continuous(None, effect=NormalEffect()), bad, f, y)
    assert "use recast_nuts" in notes(summary)
    assert "Cauchy" not in notes(summary)


def test_the_source_is_described() -> None:
    net = nn.Sequential(nn.Linear(1, 1)).double().eval().requires_grad_(requires_grad=False)
    f, y = simulated(30, 0.3)
    draws = around({"delta": (0.9, 0.1), "log_gamma": (-1.2, 0.2)}).draws
    model: RECaST = recast.binary(net, link=lambda p: p)
    text = str(recast_summary(model, draws, f.unsqueeze(1), (y > 0).double()))
    assert "recast.binary(source=Sequential, effect=CauchyEffect())" in text
    assert "Sequential, frozen, 2 weights; logits by link" in text
    assert "100 draws, of which nothing else is known" in text


def test_what_is_refused() -> None:
    f, y = simulated(30, 0.3)
    model = recast.continuous(None)
    with pytest.raises(TypeError, match="must be a RECaST"):
        recast_summary(nn.Linear(1, 1), {}, f, y)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="RECaSTGuide"):
        recast_summary(model, RECaSTGuide(model), f, y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no draws of 'log_gamma'"):
        recast_summary(model, {"delta": torch.ones(9)}, f, y)
    with pytest.raises(ValueError, match="at least 3"):
        recast_summary(model, around({"delta": (0.9, 0.1)}), f[:2], y[:2])
