"""What a run leaves in its folder: tables, figures, and one self-contained HTML
page that explains them.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from matplotlib.figure import Figure

from bayesnn.arviz import khat
from bayesnn.arviz.khat import FEWEST

from examples.studies.common import scoring
from examples.studies.common.choice import Choice
from examples.studies.common.datasets import LETTERS, Sets
from examples.studies.common.options import Options
from examples.studies.common.scoring import Predictions, Scores

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Report:
    """The results of a run."""

    options: Options
    sets: Sets
    choices: Mapping[str, Choice]
    evidence: Mapping[str, float]
    scores: Mapping[str, Scores]
    seconds: float


def write(report: Report, predictions: Mapping[str, Predictions], figures: Mapping[str, Figure], tree: Any) -> None:
    """table.csv, table.md, one PNG file a figure, and index.html, which needs none of them."""
    out = report.options.out
    header, rows = scoring.as_table(report.scores)
    shifted = scoring.shift_table(report.scores)
    (out / "table.csv").write_text(scoring.to_csv(scoring.as_numbers(report.scores)), encoding="utf-8")
    tables = scoring.to_markdown(header, rows) + "\n" + scoring.to_markdown(*shifted)
    (out / "table.md").write_text(tables, encoding="utf-8")
    images = {}
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        (out / f"{name}.png").write_bytes(buffer.getvalue())
        images[f"figure_{name}"] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    options = report.options
    words = {
        "table": _table(header, rows),
        "shift_table": _table(*shifted),
        "verdicts": "\n".join(_verdict(name, report.scores) for name in list(report.scores)[1:]),
        "priors": " ".join(_prior(name, report) for name in report.choices),
        "khat": _khat(tree, options.draws),
        "groups": ", ".join(f"<code>{html.escape(name)}</code>" for name in _groups(tree)),
        "train": f"{options.train_size:,}",
        "test": f"{len(report.sets.test.x):,}",
        "outside": f"{options.outside:,}",
        "weights": f"{options.weights:,}",
        "members": str(options.members),
        "folds": str(options.folds),
        "epochs": str(options.epochs),
        "draws": str(options.draws),
        "seed": str(options.seed),
        "device": str(options.device),
        "seconds": f"{report.seconds:.0f}",
        "confidence": _confidence(report, next(iter(predictions.values()))),
    }
    (out / "index.html").write_text(
        Template(TEMPLATE.read_text(encoding="utf-8")).substitute(words | images), encoding="utf-8"
    )


def _confidence(report: Report, predictions: Predictions) -> str:
    """What is wrong with the network alone."""
    test, letters = report.sets.test, predictions[LETTERS]
    assert test.y is not None
    y = test.y.cpu()
    wrong = int((predictions["test"].mean(0).argmax(-1) != y).sum())
    sure = int(scoring.sure_and_wrong(predictions["test"], y).sum())
    share = scoring.sure_and_wrong(letters, None).double().mean()
    return (
        f"It reads {wrong:,} of {len(y):,} other images wrongly, {sure:,} of these with more than {scoring.SURE:.0%} "
        f"confidence, and of images that show letters it takes {share:.0%} for a digit with as much confidence."
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>"
        + f"<th>{html.escape(row[0])}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _verdict(name: str, scores: Mapping[str, Scores]) -> str:
    """What the numbers say of a method beside the first one; a difference
    counts from two standard errors on.
    """
    first, one = next(iter(scores.values())), scores[name]
    clear = abs(one.gain.value) > 2 * one.gain.se
    better = one.gain.value < 0
    kind = "better" if clear and better else "worse" if clear else "same"
    words = {"better": "predicts better than", "worse": "predicts worse than", "same": "predicts as well as"}[kind]
    nll = f"{'lower' if better else 'higher'} by {abs(one.gain.value):.3f} ± {one.gain.se:.3f} nats an image"
    return (
        f'<li class="{kind}"><strong>{html.escape(name)}</strong> {words} the network alone: NLL {nll}, '
        f"ECE {one.ece.value:.3f} instead of {first.ece.value:.3f} ({one.ece.noise_floor:.3f} would be perfect), "
        f"accuracy {one.accuracy.value:.1%} instead of {first.accuracy.value:.1%}.</li>"
    )


def _prior(name: str, report: Report) -> str:
    chosen, evidence = report.choices[name].scale, report.evidence[name]
    return f"For the {html.escape(name)} that is {chosen:.2g}; the evidence is largest at {evidence:.2g}."


def _khat(tree: Any, draws: int) -> str:
    """What importance weights say of the normal approximation."""
    if draws < FEWEST:
        return ""
    return (
        f"k-hat, which compares the approximation with the exact posterior, is {float(khat(tree).squeeze()):.1f}; "
        "below 0.7 the draws could be reweighted to it. A normal distribution over hundreds of weights seldom gets "
        "there, so it is judged by its predictions here, and methods that reweight (<code>arviz.loo</code>) will warn."
    )


def _groups(tree: Any) -> list[str]:
    """Names of the groups, in ArviZ of both generations."""
    names = tree.groups() if callable(tree.groups) else tree.groups
    return [name.strip("/") for name in names if name.strip("/")]
