"""Intervals of predictions, PIT histograms, priors beside posteriors: numbers and refusals."""

import os

# before Matplotlib is imported: no window on anybody's desk
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from pyro import distributions as dist

from bayesnn import plots
from bayesnn.predict import PredictiveDistribution

pytest.importorskip("matplotlib")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GENERATOR = torch.Generator().manual_seed(0)
LOC = torch.tensor([3.0, -1.0, 0.5]).double()
CAUCHY = PredictiveDistribution(dist.Cauchy(LOC.expand(5, 3), 1.0))


def one() -> Axes:
    return Figure(layout="constrained").subplots()


def words(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_intervals_medians_and_targets() -> None:
    """In the order of the medians; the quartiles of a Cauchy variable are -+ 1, those of 5 and 95
    % -+ tan(.45 pi).
    """
    y = [3.5, 50.0, 0.0]
    ax = plots.prediction_intervals(CAUCHY, y, ax=one())
    wide, likely, medians, inside, outside = ax.collections
    order = [1, 2, 0]
    for lines, half in ((wide, np.tan(0.45 * np.pi)), (likely, 1.0)):
        ends = np.stack([segment[:, 1] for segment in lines.get_segments()])
        assert ends == pytest.approx(np.stack([LOC[order] - half, LOC[order] + half], 1))
    assert np.asarray(medians.get_offsets()) == pytest.approx(np.stack([[1, 2, 3], LOC[order]], 1))
    assert np.asarray(inside.get_offsets()).tolist() == [[2, 0.0], [3, 3.5]]
    assert np.asarray(outside.get_offsets()).tolist() == [[1, 50.0]]
    assert words(ax) == ["median, 50% and 90% intervals", "observed: 2 of 3 inside 90%", "outside"]
    assert ax.get_title("left") == "Predictions for 3 examples"


def test_intervals_of_torchs_own_and_of_one_level() -> None:
    ax = plots.prediction_intervals(torch.distributions.Normal(LOC, 1.0), levels=(0.8,), ax=one())
    lines, _ = ax.collections
    half = float(torch.special.ndtri(torch.tensor(0.9).double()))
    assert np.ptp(lines.get_segments()[0][:, 1]) == pytest.approx(2 * half)
    assert words(ax) == ["median, 80% interval"]
    column = PredictiveDistribution(dist.Cauchy(LOC.expand(5, 3).unsqueeze(-1), 1.0).to_event(1))
    assert len(plots.prediction_intervals(column, ax=one()).collections) == 3


def test_histogram_and_band() -> None:
    """Densities of the bins; the band is SciPy's binomial quantiles, shared among the bins."""
    stats = pytest.importorskip("scipy.stats")
    u = torch.rand(80, generator=GENERATOR, dtype=torch.double) ** 2
    ax = plots.pit_histogram({"low": u, "uniform": torch.linspace(0, 1, 200)}, bins=8, level=0.9, ax=one())
    band, *steps = ax.patches
    box = band.get_bbox()
    expected = [8 / 80 * stats.binom.ppf(q, 80, 1 / 8) for q in (0.05 / 8, 1 - 0.05 / 8)]
    assert (box.y0, box.y1) == pytest.approx(expected)
    assert steps[0].get_data().values == pytest.approx(np.histogram(u, 8, (0, 1))[0] * 8 / 80)
    assert [step.get_data().values.mean() for step in steps] == pytest.approx([1, 1])
    assert words(ax) == ["low", "uniform", "90% band if calibrated, all bins"]
    assert ax.get_title("left") == "PIT histogram, n = 80"


def test_the_band_holds_for_all_bins_together() -> None:
    """Of 2,000 uniform samples at least 95 % stay inside everywhere, but for 5 standard errors."""
    band = plots.pit_histogram({"u": torch.rand(100, generator=GENERATOR)}, ax=one()).patches[0].get_bbox()
    u = torch.rand(2000, 100, generator=GENERATOR)
    share = torch.stack([torch.histc(row, 10, 0, 1) for row in u]) / 10
    inside = ((share >= band.y0 - 1e-9) & (share <= band.y1 + 1e-9)).all(1).double().mean()
    assert inside > 0.95 - 5 * (0.95 * 0.05 / 2000) ** 0.5


def test_posteriors_beside_their_priors() -> None:
    draws = {
        "m.delta": 0.9 + 0.1 * torch.randn(500, generator=GENERATOR),
        "m.log_gamma": 3 * torch.randn(500, generator=GENERATOR),
        "other": torch.zeros(500, 2),
    }
    priors = {"m.delta": dist.Normal(1.0, 20.0), "m.log_gamma": dist.Normal(0.0, 3.0)}
    left, right = plots.prior_and_posterior(draws, priors, axes=Figure().subplots(1, 2))
    assert (left.get_xlabel(), left.get_xscale()) == ("delta", "linear")
    assert (right.get_xlabel(), right.get_xscale()) == ("gamma", "log")
    for ax, site in ((left, "m.delta"), (right, "m.log_gamma")):
        steps, outline = ax.patches
        values, edges, _ = outline.get_data()
        edges = np.log(edges) if site == "m.log_gamma" else edges
        assert np.diff(edges) == pytest.approx(np.full(30, edges[1] - edges[0]), rel=1e-6)
        mass = (values * np.diff(edges)).sum()
        assert 0.99 <= mass <= 1
        x, density = ax.lines[0].get_data()
        x = np.log(x) if site == "m.log_gamma" else x
        assert density == pytest.approx(priors[site].log_prob(torch.as_tensor(x)).exp().numpy())
        assert steps.get_data().values == pytest.approx(values)
    assert words(right)[1] == "prior, sd 3"
    assert words(left)[0] == f"posterior, sd {draws['m.delta'].numpy().std():.2g}"
    (cauchy,) = plots.prior_and_posterior({"a": torch.randn(99)}, {"a": dist.Cauchy(0.0, 1.0)}, axes=[one()])
    assert words(cauchy)[1] == "prior"


def test_new_figures() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    try:
        panels = plots.prior_and_posterior(
            {"a": torch.randn(99), "b": torch.ones(99)}, {"a": dist.Normal(0.0, 1.0), "b": dist.Normal(0.0, 1.0)}
        )
        assert len(panels) == 2
        assert len(plots.prior_and_posterior({"a": torch.randn(99)}, {"a": dist.Normal(0.0, 1.0)})) == 1
        for ax in (*panels, plots.pit_histogram({"u": torch.rand(50)}), plots.prediction_intervals(CAUCHY)):
            ax.figure.draw_without_rendering()
            box, page = ax.get_tightbbox(), ax.figure.bbox
            assert box.x0 >= page.x0 - 1
            assert box.x1 <= page.x1 + 1
            assert box.y1 <= page.y1 + 1
    finally:
        pyplot.close("all")


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="one or two levels"):
        plots.prediction_intervals(CAUCHY, levels=(0.5, 0.8, 0.9))
    with pytest.raises(ValueError, match="level"):
        plots.prediction_intervals(CAUCHY, levels=(90,))
    with pytest.raises(ValueError, match="predictive has 3, y has 2"):
        plots.prediction_intervals(CAUCHY, [0.0, 1.0])
    with pytest.raises(ValueError, match=r"one target for each example.*\(3, 2\)"):
        plots.prediction_intervals(PredictiveDistribution(dist.Normal(torch.zeros(5, 3, 2), 1.0).to_event(1)))
    with pytest.raises(NotImplementedError, match="labels"):
        plots.prediction_intervals(PredictiveDistribution(dist.Bernoulli(torch.full((5, 3), 0.5))))
    with pytest.raises(ValueError, match="at least two bins"):
        plots.pit_histogram({"u": [0.5]}, bins=1)
    with pytest.raises(ValueError, match="not between 0 and 1"):
        plots.pit_histogram({"u": [0.5, 1.5]})
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.prior_and_posterior({}, {})
    with pytest.raises(ValueError, match="no draws of 'b', only of a"):
        plots.prior_and_posterior({"a": [0.0]}, {"b": dist.Normal(0.0, 1.0)})
    with pytest.raises(ValueError, match="1 priors need as many axes, not 0"):
        plots.prior_and_posterior({"a": [0.0]}, {"a": dist.Normal(0.0, 1.0)}, axes=[])
