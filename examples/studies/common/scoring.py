"""From predictions to tables: how good they are on the test set, and whether uncertainty tells
what lies outside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from bayesnn import metrics

from examples.studies.common.datasets import Images, Sets

SURE = 0.95

Predictions = dict[str, Tensor]
"""{name of the set: class probabilities of every draw [draw, batch, class]};
their mean is the prediction.
"""


def predict_everywhere(predictor: Callable[[Tensor], Tensor], sets: Sets, name: str) -> Predictions:
    """Probabilities of all sets, some images at a time, which bounds the memory
    that Jacobians take.
    """
    total = sum(len(images.x) for images in sets.everywhere.values())
    with tqdm(total=total, desc=f"predict: {name}", unit="image") as bar, torch.no_grad():

        def part(x: Tensor) -> Tensor:
            bar.update(len(x))
            return predictor(x).cpu()

        return {
            kind: torch.cat([part(x) for x in images.x.split(100)], dim=1) for kind, images in sets.everywhere.items()
        }


@dataclass(frozen=True)
class Scores:
    """One line of the table.

    Attributes:
        gain: NLL minus that of the first method on the same images, paired: its error is far below
            that of either.
        auroc: {kind: how well predictive entropy tells these images from the test set, which is
            the negative class}.
        shift: {kind: (accuracy, NLL, ECE)} of sets from outside whose images have classes of ours.
    """

    accuracy: metrics.Estimate
    nll: metrics.Estimate
    gain: metrics.Estimate
    brier: metrics.Estimate
    ece: metrics.CalibrationError
    auroc: dict[str, metrics.Estimate]
    shift: dict[str, tuple[metrics.Estimate, metrics.Estimate, metrics.CalibrationError]]


def score(predictions: Mapping[str, Predictions], sets: Sets) -> dict[str, Scores]:
    """{method: scores}; the first method is the one that the others are compared with."""
    reference = _log_loss(next(iter(predictions.values()))["test"], sets.test)
    result = {}
    for name, of in tqdm(predictions.items(), desc="scores", unit="method"):
        p, y = of["test"].mean(0), _labels(sets.test)
        entropy = {kind: metrics.entropy(of[kind].mean(0)) for kind in of}
        result[name] = Scores(
            accuracy=metrics.accuracy(p, y),
            nll=metrics.nll(p, y),
            gain=metrics.mean_estimate(_log_loss(of["test"], sets.test) - reference),
            brier=metrics.brier(p, y),
            ece=metrics.ece(p, y),
            auroc={kind: metrics.auroc(entropy["test"], entropy[kind]) for kind in sets.outside},
            shift={kind: _shift(of[kind], images) for kind, images in sets.outside.items() if images.y is not None},
        )
    return result


def _shift(draws: Tensor, images: Images) -> tuple[metrics.Estimate, metrics.Estimate, metrics.CalibrationError]:
    p, y = draws.mean(0), _labels(images)
    return metrics.accuracy(p, y), metrics.nll(p, y), metrics.ece(p, y)


def _labels(images: Images) -> Tensor:
    assert images.y is not None
    return images.y.cpu()


def _log_loss(draws: Tensor, images: Images) -> Tensor:
    """-log p(y_i) in nats, [batch]."""
    y = _labels(images)
    return -draws.mean(0)[torch.arange(len(y)), y].double().log()


def sure_and_wrong(draws: Tensor, y: Tensor | None) -> Tensor:
    """Images [batch] given more than `SURE` for a wrong class; without y every class is wrong."""
    confidence, predicted = draws.mean(0).max(-1)
    return confidence > SURE if y is None else (confidence > SURE) & (predicted != y)


def as_table(scores: Mapping[str, Scores]) -> tuple[list[str], list[list[str]]]:
    """Header and rows to read: value ± standard error; the ECE with its 95 %
    interval and its noise floor.
    """
    first = next(iter(scores.values()))
    header = ["method", "accuracy (%)", "NLL (nats)", "NLL - MAP's", "Brier", "ECE [95 % interval]", "if calibrated"]
    header += [f"AUROC {kind}" for kind in first.auroc]
    rows = []
    for name, one in scores.items():
        gain = "" if one is first else f"{one.gain.value:+.3f} ± {one.gain.se:.3f}"
        ece = f"{one.ece.value:.3f} [{one.ece.low:.3f}, {one.ece.high:.3f}]"
        cells = [
            name,
            percent(one.accuracy),
            f"{one.nll:.3f}",
            gain,
            f"{one.brier:.3f}",
            ece,
            f"{one.ece.noise_floor:.3f}",
        ]
        rows.append(cells + [f"{one.auroc[kind]:.3f}" for kind in one.auroc])
    return header, rows


def shift_table(scores: Mapping[str, Scores]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the sets whose images have classes of ours, though
    they look different.
    """
    kinds = list(next(iter(scores.values())).shift)
    header = ["method"] + [f"{what}, {kind}" for kind in kinds for what in ("accuracy (%)", "NLL (nats)", "ECE")]
    rows = []
    for name, one in scores.items():
        cells = [name]
        for kind in kinds:
            accuracy, nll, ece = one.shift[kind]
            cells += [percent(accuracy), f"{nll:.2f}", f"{ece:.3f}"]
        rows.append(cells)
    return header, rows


def percent(share: metrics.Estimate) -> str:
    """A share and its standard error in per cent."""
    return f"{100 * share.value:.1f} ± {100 * share.se:.1f}"


def as_numbers(scores: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """{method: {column: number}}: everything of the tables, for a CSV file and
    for means over seeds.
    """
    result = {}
    for name, one in scores.items():
        found = {
            "accuracy": one.accuracy,
            "nll": one.nll,
            "nll_minus_map": one.gain,
            "brier": one.brier,
            "ece": one.ece,
        }
        found |= {f"auroc_{kind.replace(' ', '_')}": value for kind, value in one.auroc.items()}
        for kind, values in one.shift.items():
            found |= {
                f"{what}_{kind.replace(' ', '_')}": v
                for what, v in zip(("accuracy", "nll", "ece"), values, strict=True)
            }
        row: dict[str, float] = {}
        for column, estimate in found.items():
            row |= {column: estimate.value, f"{column}_se": estimate.se}
            if column == "ece":
                row |= {"ece_low": estimate.low, "ece_high": estimate.high, "ece_noise_floor": one.ece.noise_floor}
        result[name] = row
    return result


def to_csv(numbers: Mapping[str, Mapping[str, float]]) -> str:
    """A line for each method."""
    columns = list(next(iter(numbers.values())))
    lines = [",".join(["method", *columns])]
    lines += [",".join([f'"{name}"', *(f"{row[column]:.6g}" for column in columns)]) for name, row in numbers.items()]
    return "\n".join(lines) + "\n"


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's Markdown."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def to_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns for a terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (header, *rows)]
    return "\n".join(line.rstrip() for line in (lines[0], "-" * len(lines[0]), *lines[1:]))
