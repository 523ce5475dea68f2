"""What the pictures show is what the metrics say; axes in, axes out;
Matplotlib's global state is left alone.
"""

import os

# before Matplotlib is imported: no window on anybody's desk
os.environ.setdefault("MPLBACKEND", "Agg")

import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bayesnn import metrics, plots
from bayesnn.plots import _style

SOURCE = torch.Generator().manual_seed(0)
LOGITS = 2 * torch.randn(400, 5, generator=SOURCE)
LABELS = torch.multinomial(LOGITS.softmax(-1), 1, generator=SOURCE)[:, 0]
PROBS = (2 * LOGITS).softmax(-1)
WRONG = PROBS.argmax(-1) != LABELS
ENTROPY = metrics.entropy(PROBS)
X = torch.linspace(-1, 1, 30)
MEANS = X * torch.randn(200, 1, generator=SOURCE)
OUTCOMES = MEANS + 0.5 * torch.randn(200, 30, generator=SOURCE)
HISTORY = SimpleNamespace(loss=[5.0, 3.0, 2.0, 1.8], validation=[0.9, 0.6, 0.5, 0.55])

DRAWN: dict[str, Callable[[Axes | None], Axes]] = {
    "reliability": lambda ax: plots.reliability_diagram(PROBS, LABELS, ax=ax),
    "bands": lambda ax: plots.predictive_bands(X, MEANS, outcomes=OUTCOMES, data=([0.0], [0.1]), truth=X, ax=ax),
    "histograms": lambda ax: plots.uncertainty_histograms({"in": ENTROPY, "out": ENTROPY + 1}, ax=ax),
    "rejection": lambda ax: plots.rejection_curve({"a": (ENTROPY, WRONG), "b": (-ENTROPY, WRONG)}, ax=ax),
    "training": lambda ax: plots.training_curve(HISTORY, ax=ax),
}


@pytest.fixture(autouse=True)
def no_figure_stays() -> Iterator[None]:
    yield
    plt.close("all")


def axes() -> Axes:
    return Figure(layout="constrained").subplots()


def words(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("draw", DRAWN.values(), ids=list(DRAWN))
def test_axes_in_axes_out_and_no_global_state(draw: Callable[[Axes | None], Axes]) -> None:
    settings = dict(matplotlib.rcParams)
    given = axes()
    assert draw(given) is given
    assert not plt.get_fignums()  # axes of the user's: no figure of our own
    own = draw(None)
    assert len(plt.get_fignums()) == 1
    assert dict(matplotlib.rcParams) == settings
    for ax in (given, own):
        assert ax.get_title("left")
        lowest = ax.child_axes[0] if ax.child_axes else ax
        assert lowest.get_xlabel()
        assert ax.get_ylabel()
        # Everything drawn lies within the figure: no label is cut off.
        ax.figure.draw_without_rendering()
        for part in (ax, *ax.child_axes):
            box, page = part.get_tightbbox(), ax.figure.bbox
            assert box.x0 >= page.x0 - 1
            assert box.y0 >= page.y0 - 1
            assert box.x1 <= page.x1 + 1
            assert box.y1 <= page.y1 + 1


def test_reliability_shows_the_bins_their_intervals_and_their_counts() -> None:
    ax = plots.reliability_diagram(PROBS, LABELS, bins=10, ax=axes())
    table = metrics.calibration_bins(PROBS, LABELS, bins=10)
    full = table.count > 0
    diagonal, curve = ax.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert curve.get_xydata() == pytest.approx(torch.stack([table.confidence[full], table.accuracy[full]], -1).numpy())
    band, whiskers, _ = ax.collections
    ends = np.stack([segment[:, 1] for segment in whiskers.get_segments()])
    assert ends == pytest.approx(torch.stack([table.low[full], table.high[full]], -1).numpy())
    assert band.get_paths()[0].get_extents().ymax == pytest.approx(float(table.high[full].max()))
    (strip,) = ax.child_axes
    assert [bar.get_height() for bar in strip.patches] == table.count.tolist()
    assert [bar.get_x() for bar in strip.patches] == pytest.approx(table.edges[:-1].tolist())
    assert strip.get_xlim() == ax.get_xlim() == (0, 1)
    error = metrics.ece(PROBS, LABELS, bins=10)
    assert words(ax)[1:] == [f"ECE {error.value:.3f} ± {error.se:.3f}", f"{error.noise_floor:.2g} if calibrated"]
    assert "n = 400" in ax.get_title("left")


def test_reliability_without_resamples_claims_no_error() -> None:
    ax = plots.reliability_diagram(PROBS, LABELS, resamples=0, ax=axes())
    assert words(ax)[1:] == [f"ECE {float(metrics.ece(PROBS, LABELS, resamples=0)):.4g}"]


def test_bands_are_central_intervals_in_the_order_of_x() -> None:
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    data = (torch.tensor([0.3, -0.2]), torch.tensor([1.0, 2.0]))
    ax = plots.predictive_bands(
        X[shuffled], MEANS[:, shuffled], outcomes=OUTCOMES[:, shuffled], data=data, truth=(2 * X)[shuffled], ax=axes()
    )
    pale, dark, points = ax.collections
    for band, draws in ((pale, OUTCOMES), (dark, MEANS)):
        low, high = (end.numpy() for end in metrics.central_interval(draws))
        vertices = band.get_paths()[0].vertices
        for i, x in enumerate(X.numpy()):
            heights = vertices[np.isclose(vertices[:, 0], x), 1]
            assert (heights.min(), heights.max()) == pytest.approx((low[i], high[i]), abs=1e-6)
    middle, truth = ax.lines
    assert middle.get_ydata() == pytest.approx(np.median(MEANS.numpy(), 0), abs=1e-6)
    assert truth.get_ydata() == pytest.approx(2 * X.numpy())
    assert np.asarray(points.get_offsets()) == pytest.approx(torch.stack(data, -1).numpy())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "95% of outcomes (with noise)",
        "95% of means (epistemic)",
        "median of means",
        "truth",
        "data, n = 2",
    ]
    assert len(plots.predictive_bands(X, MEANS, level=0.5, ax=axes()).collections) == 1


def test_histograms_are_shares_on_common_edges_and_carry_the_auroc() -> None:
    inside, outside = ENTROPY, 0.5 + ENTROPY[:100]
    ax = plots.uncertainty_histograms({"digits": inside, "letters": outside}, bins=12, ax=axes())
    steps = [patch.get_data() for patch in ax.patches[::2]]
    assert np.array_equal(steps[0].edges, steps[1].edges)
    assert len(steps[0].values) == 12
    assert [step.values.sum() for step in steps] == pytest.approx([1, 1])
    assert steps[1].values == pytest.approx(np.histogram(outside.numpy(), steps[1].edges)[0] / 100)
    assert words(ax) == ["digits, n = 400", f"letters, n = 100, AUROC {metrics.auroc(inside, outside)}"]
    assert [to_hex(text.get_color()) for text in ax.texts] == [
        to_hex(patch.get_edgecolor()) for patch in ax.patches[1::2]
    ]
    assert ax.get_ylim()[1] > max(step.values.max() for step in steps)


def test_words_go_where_the_examples_are_not() -> None:
    left = plots.uncertainty_histograms({"a": torch.tensor([0.0] * 9 + [1.0])}, ax=axes())
    right = plots.uncertainty_histograms({"a": torch.tensor([1.0] * 9 + [0.0])}, ax=axes())
    assert left.texts[0].get_ha() == "right"
    assert right.texts[0].get_ha() == "left"


def test_rejection_curves_are_the_risk_at_each_coverage() -> None:
    methods = {"entropy": (ENTROPY, WRONG), "noise": (torch.rand(400, generator=SOURCE), WRONG)}
    ax = plots.rejection_curve(methods, ax=axes())
    for line, (scores, losses) in zip(ax.lines, methods.values(), strict=True):
        curve = metrics.risk_coverage(scores, losses)
        # shares of fewer than ten left out
        assert line.get_xdata() == pytest.approx(curve.coverage[9:].numpy())
        assert line.get_ydata() == pytest.approx(curve.risk[9:].numpy())
        assert line.get_ydata()[-1] == pytest.approx(float(WRONG.double().mean()))
    assert words(ax) == [f"{name}, AURC {metrics.aurc(*pair)}" for name, pair in methods.items()]
    assert ax.get_ylim()[0] == 0
    assert len({line.get_color() for line in ax.lines}) == 2
    flawless = plots.rejection_curve({"a": (ENTROPY, torch.zeros(400))}, ax=axes())
    assert flawless.get_ylim()[1] >= 1


def test_training_has_epochs_from_one_and_validation_on_its_own_axis() -> None:
    ax = plots.training_curve(HISTORY, validation_label="validation NLL (nats)", ax=axes())
    assert ax.lines[0].get_xydata().tolist() == [[1, 5], [2, 3], [3, 2], [4, 1.8]]
    other = ax.figure.axes[-1]
    assert other is not ax
    assert other.get_ylabel() == "validation NLL (nats)"
    assert other.lines[0].get_ydata().tolist() == HISTORY.validation
    assert other.lines[1].get_xydata().tolist() == [[3, 0.5]]
    assert ax.get_title("left") == "Training, 4 epochs; validation is best after 3"
    assert ax.yaxis.label.get_color() == ax.lines[0].get_color()


@pytest.mark.parametrize("validation", [[], [float("nan")] * 4])
def test_training_without_validation(validation: list[float]) -> None:
    ax = plots.training_curve(SimpleNamespace(loss=HISTORY.loss, validation=validation), ax=axes())
    assert len(ax.figure.axes) == 1
    assert ax.get_title("left") == "Training, 4 epochs"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.training_curve(SimpleNamespace(loss=[], validation=[])), "history.loss is empty"),
        (lambda: plots.uncertainty_histograms({}), "uncertainty_histograms: nothing to draw"),
        (lambda: plots.uncertainty_histograms({"a": [1.0, float("nan")]}), r"scores\['a'\]\[1\] is nan"),
        (lambda: plots.rejection_curve({str(i): (ENTROPY, WRONG) for i in range(8)}), "8 entries, but only 7 colours"),
        (lambda: plots.rejection_curve({"a": (ENTROPY, WRONG[:3])}), "numbers of examples differ"),
        (lambda: plots.predictive_bands(X, MEANS[:, :5]), "predictive_bands: .* x has 30, means has 5"),
        (lambda: plots.predictive_bands(X, MEANS[0]), r"means must have the axes \[draw, batch\]"),
        (lambda: plots.predictive_bands(X, MEANS, data=(X, X[:3])), r"data\[0\] has 30, data\[1\] has 3"),
        (lambda: plots.reliability_diagram(LOGITS, LABELS), "not probabilities"),
    ],
)
def test_bad_input_is_refused_before_a_figure_is_made(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
    assert not plt.get_fignums()


def test_colours_are_told_apart_in_common_colour_blindness() -> None:
    # Machado et al. 2009, severity 1, in linear RGB; distances in CIELAB between the colours as
    # seen.
    seen = {
        "normal": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    }
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in _style.COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    for kind, matrix in seen.items():
        xyz = np.clip(linear @ np.array(matrix).T, 0, 1) @ to_xyz.T / to_xyz.sum(1)
        f = np.cbrt(xyz)
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)
        apart = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1000 * np.eye(len(lab))
        assert apart.min() > 12, (kind, apart.min())


def test_importing_the_rooms_imports_no_heavy_library() -> None:
    heavy = ["matplotlib", "sklearn", "scipy", "scoringrules", "torchvision", "arviz", "pandas"]
    code = f"import sys, bayesnn.metrics, bayesnn.plots; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_matplotlib_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"bayesnn.plots needs matplotlib: pip install matplotlib"):
        plots.training_curve(HISTORY)
