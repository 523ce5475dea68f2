"""What cannot be judged is refused with the place and the repair; what can be read is read;
imports stay light.
"""

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bayesnn import metrics

PROBS, LABELS = torch.tensor([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]]), torch.tensor([0, 1, 1])
ON_PROBS = [
    metrics.nll,
    metrics.brier,
    metrics.accuracy,
    metrics.ece,
    metrics.mce,
    metrics.classwise_ece,
    metrics.calibration_bins,
    metrics.brier_decomposition,
]
ON_PAIRS = [metrics.auroc, metrics.aupr, metrics.fpr95]
ON_LOSSES = [metrics.risk_coverage, metrics.aurc, metrics.raulc]


def changed(index: tuple[int, int], value: float) -> torch.Tensor:
    probs = PROBS.clone()
    probs[index] = value
    return probs


@pytest.mark.parametrize("metric", ON_PROBS, ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    ("probs", "labels", "error", "message"),
    [
        (changed((1, 0), float("nan")), LABELS, ValueError, r"probs\[1, 0\] is nan \(1 of 6 values"),
        (changed((2, 1), float("inf")), LABELS, ValueError, r"probs\[2, 1\] is inf"),
        (PROBS.log(), LABELS, ValueError, r"not probabilities: at probs\[2\] they lie between -2.303 and .*softmax"),
        (PROBS / 2, LABELS, ValueError, r"sum to 0.5 \(largest deviation 0.5; 0.005 is allowed\)"),
        (PROBS[None], LABELS, ValueError, r"\[batch, class\], not the shape \[1, 3, 2\].*probs.mean\(0\)"),
        (PROBS[:, 1], LABELS, ValueError, r"torch.stack\(\[1 - p, p\], -1\)"),
        (PROBS[:, :1], LABELS, ValueError, "one class"),
        (PROBS[:0], LABELS[:0], ValueError, "is empty"),
        (PROBS, LABELS[:2], ValueError, "probs has 3 examples and labels has 2"),
        (PROBS, torch.tensor([0, 2, 1]), ValueError, r"labels\[1\] = 2 is outside the classes 0 to 1"),
        (PROBS, torch.tensor([0, 1, -100]), ValueError, r"labels\[2\] = -100 is outside"),
        (PROBS, torch.eye(2, dtype=torch.long)[LABELS], ValueError, r"look one-hot; give class numbers: labels.argmax"),
        (PROBS, LABELS.float(), TypeError, r"labels are float32; give class numbers: labels.long\(\)"),
    ],
)
def test_bad_probabilities_and_labels(
    metric: Any, probs: torch.Tensor, labels: torch.Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{metric.__name__}: .*{message}"):
        metric(probs, labels)


@pytest.mark.parametrize("metric", ON_PAIRS, ids=lambda m: m.__name__)
def test_bad_scores(metric: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{metric.__name__}: out_scores is empty; .* both need"):
        metric([0.1, 0.2], [])
    with pytest.raises(ValueError, match=rf"^{metric.__name__}: in_scores\[1\] is nan"):
        metric([0.1, float("nan")], [0.3])
    with pytest.raises(ValueError, match=r"in_scores must have the axes \[batch\], not the shape \[2, 2\]"):
        metric(torch.zeros(2, 2), torch.zeros(2))


@pytest.mark.parametrize("metric", ON_LOSSES, ids=lambda m: m.__name__)
def test_bad_losses(metric: Any) -> None:
    with pytest.raises(ValueError, match=r"numbers of examples differ: scores has 2, .* has 3"):
        metric([0.1, 0.2], [0, 1, 1])
    with pytest.raises(ValueError, match=rf"^{metric.__name__}: .*\[0\] is nan"):
        metric([0.1, 0.2], [float("nan"), 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.raulc([0.1, 0.2], [0.5, 1.0]), ValueError, r"raulc: errors must be booleans or 0 and 1"),
        (
            lambda: metrics.rmse([[1.0, 2.0]], [1.0, 2.0]),
            ValueError,
            r"rmse: .*judge their mean: predictions.mean\(0\)",
        ),
        (lambda: metrics.rmse([1.0], [1.0, 2.0]), ValueError, "predictions has 1, targets has 2"),
        (lambda: metrics.crps([[1.0, 2.0]], [1.0, 2.0]), ValueError, "one draw has no spread"),
        (lambda: metrics.crps([1.0, 2.0], [1.0, 2.0]), ValueError, r"\[draw, batch\], not .* value\[None\]"),
        (lambda: metrics.coverage([1.0], [0.0], [0.5]), ValueError, r"lower\[0\] = 1 exceeds upper\[0\] = 0"),
        (lambda: metrics.interval_score([0.0], [1.0], [0.5], nominal=95), ValueError, "nominal = 95 must lie strictly"),
        (lambda: metrics.nll(PROBS, LABELS, level=1.0), ValueError, "level = 1.0 must lie strictly between 0 and 1"),
        (lambda: metrics.ece(PROBS, LABELS, bins=0), ValueError, "bins = 0 must be at least 1"),
        (lambda: metrics.ece(PROBS, LABELS, resamples=-1), ValueError, "resamples = -1 must be at least 0"),
        (lambda: metrics.log_score([float("inf")]), ValueError, r"\+inf, a density without bound"),
        (lambda: metrics.log_score(torch.zeros(1, 1, 1)), ValueError, r"\[draw, batch\]"),
        (lambda: metrics.central_interval([1.0, 2.0]), ValueError, r"must be \[draw, batch\]"),
        (lambda: metrics.mutual_information(PROBS), ValueError, r"\[draw, batch, class\]; .*probs\[None\]"),
        (lambda: metrics.entropy(torch.tensor([2.0, -1.0])), ValueError, r"at probs\[\] they lie between -1 and 2"),
        (lambda: metrics.decompose_variance(torch.zeros(3), 1.0), ValueError, "no draw axis"),
        (lambda: metrics.decompose_variance(torch.zeros(3, 2), -1.0), ValueError, "go down to -1; .*not log variances"),
        (lambda: metrics.decompose_variance(torch.zeros(3, 2), torch.ones(5)), ValueError, "do not broadcast"),
        (lambda: metrics.rmse(torch.zeros(2, dtype=torch.cfloat), [0.0, 0.0]), TypeError, "predictions is complex"),
    ],
)
def test_other_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_any_array_gives_the_same_numbers() -> None:
    expected = metrics.brier(PROBS, LABELS).value
    read_only = PROBS.numpy().copy()
    read_only.flags.writeable = False
    for probs in (PROBS.numpy(), PROBS.tolist(), PROBS.double(), read_only, PROBS.clone().requires_grad_()):
        for labels in (LABELS.numpy(), LABELS.tolist(), LABELS.bool(), LABELS.numpy().astype(np.uint8)):
            assert metrics.brier(probs, labels).value == pytest.approx(expected, abs=1e-6)
    reversed_view = metrics.brier(PROBS.numpy()[::-1], LABELS.numpy()[::-1])
    assert reversed_view.value == pytest.approx(expected, abs=1e-6)
    assert metrics.brier(torch.randn(50, 100).bfloat16().softmax(-1), torch.zeros(50).long()).n == 50


def test_crps_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scoringrules", None)
    with pytest.raises(ImportError, match="crps needs scoringrules: pip install scoringrules"):
        metrics.crps([[0.0], [1.0]], [0.0])


def test_the_room_imports_torch_and_numpy_only() -> None:
    # Everything outside functions; the room's own files may use each other, and nothing else of
    # the package.
    allowed = {"torch", "numpy", *sys.stdlib_module_names}
    for path in Path(metrics.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("bayesnn.metrics"), f"{path.name}: {name}"
