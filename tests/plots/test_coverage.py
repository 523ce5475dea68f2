"""The coverage curve: shares of intervals, the band of the binomial distribution, errors."""

import pytest
import torch

from bayesnn import metrics, plots

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure


def test_curve_and_band() -> None:
    """The curve is `metrics.coverage` of a normal's intervals; the band is
    SciPy's binomial quantiles.
    """
    stats = pytest.importorskip("scipy.stats")
    y = 1.5 * torch.randn(80, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    normal = torch.distributions.Normal(torch.zeros(80, dtype=torch.double), 1.0)
    u = normal.cdf(y)
    ax = plots.coverage_curve({"narrow": u, "more": torch.linspace(0, 1, 200)}, ax=Figure().subplots())
    diagonal, narrow, _ = ax.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    for nominal, share in narrow.get_xydata()[[9, 49, 89]]:
        low, high = (normal.icdf(torch.full((80,), (1 + sign * nominal) / 2).double()) for sign in (-1, 1))
        assert share == pytest.approx(float(metrics.coverage(low, high, y)))
    (band,) = ax.collections
    corners = {(round(x, 6), round(share, 6)) for x, share in band.get_paths()[0].vertices}
    for nominal in (0.05, 0.5, 0.99):
        for q in (0.025, 0.975):
            assert (nominal, round(float(stats.binom.ppf(q, 80, nominal)) / 80, 6)) in corners
    assert [text.get_text() for text in ax.texts] == ["narrow", "more", "95% band if calibrated"]
    assert ax.get_title("left") == "Coverage of equal-tailed intervals, n = 80"


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nothing to draw; give \{name: u\}"):
        plots.coverage_curve({})
    with pytest.raises(ValueError, match=r"not between 0 and 1; give predictive"):
        plots.coverage_curve({"a": torch.tensor([0.5, 1.5])})
    with pytest.raises(ValueError, match="level"):
        plots.coverage_curve({"a": torch.tensor([0.5])}, level=95)
