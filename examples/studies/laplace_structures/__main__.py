"""Every structure and subset of a Laplace approximation on the quickstart's digits: what each
gains, and costs.

    python -m examples.studies.laplace_structures --seeds 0 1 2 3 4 --out docs/tables

Beside MAP, one temperature and an ensemble of five. All predictions are linearised, with the
probit formula; every prior scale is cross-validated within the 1,000 training images, and, for
comparison, chosen by the evidence. Costs are CPU times on one thread: of the fit in epochs of
plain training, of predictions in forward passes of the network.

Writes laplace_structures.md: means over seeds with standard errors. About six minutes a seed on
one core; what a seed gave is kept under --runs, so a stopped run goes on.
"""

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import Diagonal, Full, Kronecker, Laplace, LowRank
from bayesnn.predict import probit

from examples.studies.common import scoring, study
from examples.studies.common.choice import SCALES, Fold
from examples.studies.common.datasets import Sets, batches, load
from examples.studies.common.network import CrossEntropy, train_all
from examples.studies.common.options import Options
from examples.studies.common.temperature import TEMPERATURES, cooled, held_out_loss

SMOKE = bool(os.environ.get("SMOKE"))
RANK = 5 if SMOKE else 30
TRIED = SCALES[::9] if SMOKE else SCALES[::2]
Row = dict[str, float]


def structures(options: Options) -> dict[str, tuple[Any, Any]]:
    """{name: (network, data -> subset; structure)}."""

    def at_random(net: nn.Module, data: object) -> subset.Subset:
        return subset.random(net, options.weights // 2, generator=torch.Generator().manual_seed(options.seed))

    def informative(net: nn.Module, data: Any) -> subset.Subset:
        return subset.largest_variance(net, batches(data), likelihoods.categorical, k=options.weights // 2)

    last = lambda net, data: subset.last_layer(net)  # noqa: E731
    whole = lambda net, data: subset.everything(net)  # noqa: E731
    return {
        "last layer, full": (last, Full),
        "last layer, Kronecker": (last, Kronecker),
        "last layer, diagonal": (last, Diagonal),
        f"{options.weights // 2} weights at random, full": (at_random, Full),
        f"{options.weights // 2} of largest variance, full": (informative, Full),
        "all weights, Kronecker": (whole, Kronecker),
        "all weights, diagonal": (whole, Diagonal),
        f"all weights, rank {RANK}": (whole, partial(LowRank, rank=RANK)),
    }


def fitted(rule: Any, structure: Any, net: nn.Module, data: Any) -> Laplace:
    """The approximation under N(0, 1); the prior changes afterwards for free."""
    model = BNN(net, rule(net, data), priors.normal(1.0), likelihoods.categorical)
    return Laplace(model, structure=structure).fit(batches(data))


def under(guide: Laplace, scale: float) -> Laplace:
    """The same curvature under N(0, scale^2)."""
    return guide.with_prior(priors.normal(scale))


def probabilities(guide: Laplace, x: Tensor) -> Tensor:
    """Class probabilities by the probit formula, as one draw."""
    return probit(guide.model.likelihood, guide.output_distribution(x, diagonal=True)).component_probs


def validated(rule: Any, structure: Any, held: list[Fold]) -> float:
    """The prior scale that predicts best what each fold held out."""
    losses = dict.fromkeys(TRIED, 0.0)
    for fold in held:
        guide = fitted(rule, structure, fold.net, fold.train)
        x, y = fold.validation.tensors
        for scale in losses:
            p = probabilities(under(guide, scale), x)[0]
            losses[scale] -= float(p[torch.arange(len(y)), y].log().sum())
    return min(losses, key=losses.__getitem__)


def cpu_seconds(action: Callable[[], object]) -> float:
    """Of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def decomposed(fit: Callable[[], Laplace]) -> object:
    """A fit and the decomposition that its first use makes."""
    return fit().posterior


def predict_chunks(guide: Laplace, x: Tensor) -> list[Tensor]:
    """Probabilities, fifty images at a time."""
    return [probabilities(guide, part) for part in x.split(50)]


def epoch(net: nn.Module, data: Any) -> None:
    """One of plain training, on a copy that is thrown away."""
    loss = CrossEntropy(net)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.0)
    for x, y in batches(data):
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()


def one_seed(options: Options) -> dict[str, Row]:
    """{method: numbers}."""
    sets: Sets = load(options)
    members, _, held = train_all(options, sets.train)
    net, found = members[0], {}
    temperature = min(TEMPERATURES.tolist(), key=lambda t: held_out_loss(held, t))
    found["MAP"] = scoring.predict_everywhere(partial(cooled, net, 1.0), sets, "MAP")
    found["MAP, one temperature"] = scoring.predict_everywhere(partial(cooled, net, temperature), sets, "temperature")
    ensemble = lambda x: torch.stack([member(x).softmax(-1) for member in members])  # noqa: E731
    found[f"ensemble of {options.members}"] = scoring.predict_everywhere(ensemble, sets, "ensemble")
    scales: dict[str, Row] = {}
    for name, (rule, structure) in structures(options).items():
        scale = validated(rule, structure, held)
        guide = under(fitted(rule, structure, net, sets.train), scale)
        found[name] = scoring.predict_everywhere(partial(probabilities, guide), sets, name)
        best = guide.maximise_evidence()
        found[f"{name}, by evidence"] = scoring.predict_everywhere(partial(probabilities, best), sets, name)
        scales[name] = {"scale": scale, "scale_evidence": float(best.fitted.prior_precision[0]) ** -0.5}
    rows = scoring.as_numbers(scoring.score(found, sets))
    measured = costs(options, net, sets)
    return {name: {**row, **scales.get(name, {}), **measured.get(name, {})} for name, row in rows.items()}


def costs(options: Options, net: nn.Module, sets: Sets) -> dict[str, Row]:
    """{method: CPU time of the fit in epochs, of predictions in forward passes}."""
    part, found = sets.test.x[:1000], {}
    plain = statistics.median(cpu_seconds(partial(epoch, net, sets.train)) for _ in range(3))
    with torch.no_grad():
        forward = statistics.median(cpu_seconds(lambda: [net(x) for x in part.split(50)]) for _ in range(3))
    for name, (rule, structure) in structures(options).items():
        chosen = rule(net, sets.train)  # to choose the weights is not counted
        fit = partial(fitted, lambda net, data, chosen=chosen: chosen, structure, net, sets.train)
        guide = fit()
        _ = guide.posterior  # its decomposition belongs to the fit
        found[name] = {
            "fit": cpu_seconds(partial(decomposed, fit)) / plain,
            "predict": cpu_seconds(partial(predict_chunks, guide, part)) / forward,
        }
    return found


def to_markdown(runs: list[dict[str, Row]]) -> str:
    """One line a method."""
    header = ["posterior", "NLL - MAP's", "ECE", "AUROC letters", "AUROC rotated", "by evidence: NLL - MAP's", "ECE"]
    header += ["fit (epochs)", "predict (passes)"]

    def cell(name: str, column: str, places: int = 3, *, minus: bool = False) -> str:
        if name not in runs[0] or column not in runs[0][name]:
            return ""
        values = [run[name][column] - (run["MAP"][column] if minus else 0.0) for run in runs]
        return study.cell(values, places, sign=minus)

    rows = []
    for name in runs[0]:
        if name.endswith(", by evidence"):
            continue
        other = f"{name}, by evidence"
        cells = [name, cell(name, "nll", minus=True) if name != "MAP" else "", cell(name, "ece")]
        cells += [cell(name, "auroc_letters"), cell(name, "auroc_rotated_digits")]
        cells += [cell(other, "nll", minus=True), cell(other, "ece")]
        cells += [cell(name, "fit", 1), cell(name, "predict", 1)]
        rows.append(cells)
    nll = study.average([run["MAP"]["nll"] for run in runs])
    floor = study.average([run["MAP"]["ece_noise_floor"] for run in runs])[0]
    note = (
        f"\nMeans over {len(runs)} seeds ± standard error, in nats; MAP's NLL is {nll[0]:.3f} ± {nll[1]:.3f}. An ECE "
        f"of {floor:.3f} is what a calibrated predictor shows on as many images. Prior scales are cross-validated, or, "
        "in the two columns that say so, maximise the evidence.\n"
    )
    return scoring.to_markdown(header, rows) + note


def main() -> None:
    """Every seed that has not run yet, then the table."""
    runs, out = study.each_seed(one_seed, "laplace_structures", "Structures and subsets of Laplace approximations.")
    markdown = to_markdown(runs)
    (out / "laplace_structures.md").write_text(markdown, encoding="utf-8")
    print(markdown)


if __name__ == "__main__":
    main()
