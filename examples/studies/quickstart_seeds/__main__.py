"""The quickstart's comparison over several seeds, with what a careful reader asks next.

    python -m examples.studies.quickstart_seeds --seeds 0 1 2 3 4 --out docs/tables

Each seed is another split of the data, other networks, other draws. Beside the quickstart's four
methods:

- one temperature for all logits, chosen on the same validation images: does Laplace do more than
  cool down?
- the prior scale that maximises the evidence instead of the validated one;
- weights drawn and put into the network, instead of the network linearised in them;
- as many weights at random instead of those with the largest variance;
- the same comparison around networks whose own prior scale (weight decay) was cross-validated,
  too.

Writes quickstart.md and quickstart.csv: means over seeds with their standard errors, and
differences to MAP of the same seed. Three to four minutes a seed on one core. What a seed gave is
kept under --runs, so a stopped run goes on.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from bayesnn import subset
from bayesnn.guides import Laplace
from bayesnn.predict import predictive

from examples.quickstart import laplace, probabilities, rules
from examples.studies.common import scoring, study
from examples.studies.common.choice import choose_scale
from examples.studies.common.datasets import Sets, load
from examples.studies.common.network import train_all
from examples.studies.common.options import Options
from examples.studies.common.scoring import Predictions
from examples.studies.common.temperature import TEMPERATURES, cooled, held_out_loss

SMOKE = bool(os.environ.get("SMOKE"))
WIDER, NARROWER = 1.0, (0.3,) if SMOKE else (0.5, 0.3, 0.2)


def sampled(guide: Laplace, x: Tensor, draws: int) -> Tensor:
    """Class probabilities of every draw of the weights, put into the network itself."""
    return predictive(guide, x, draws).component_probs


def compare(options: Options, sets: Sets, prior_scale: float, *, extras: bool) -> dict[str, Predictions]:
    """All methods around networks trained under N(0, prior_scale^2)."""
    members, _, held = train_all(options, sets.train, prior_scale)
    net, result = members[0], {}
    torch.manual_seed(options.seed)

    def add(name: str, predictor: Callable[[Tensor], Tensor]) -> None:
        result[name] = scoring.predict_everywhere(predictor, sets, name)

    add("MAP", partial(cooled, net, 1.0))
    temperature = min(TEMPERATURES.tolist(), key=lambda t: held_out_loss(held, t))
    add("MAP, one temperature", partial(cooled, net, temperature))
    choosers = rules(options)
    if extras:
        generator = torch.Generator().manual_seed(options.seed)
        choosers["random weights"] = lambda net, data: subset.random(net, options.weights, generator=generator)
    for name, rule in choosers.items():
        scale = choose_scale(rule, held, name).scale
        guide = laplace(net, rule(net, sets.train), scale, sets.train)
        add(f"Laplace, {name}", partial(probabilities, guide, draws=options.draws))
        if extras:
            evidence = guide.maximise_evidence()
            add(f"Laplace, {name}, prior by evidence", partial(probabilities, evidence, draws=options.draws))
            if name != "last layer":  # which is linear in its weights
                add(f"Laplace, {name}, same prior, weights sampled", partial(sampled, guide, draws=options.draws))
    add(f"ensemble of {options.members}", lambda x: torch.stack([member(x).softmax(-1) for member in members]))
    return result


def validated_scale(options: Options, sets: Sets) -> float:
    """The prior scale of training whose networks predict held-out images best; no ensemble is
    needed for that.
    """
    losses = {}
    for scale in (WIDER, *NARROWER):
        _, _, held = train_all(replace(options, members=1), sets.train, scale)
        losses[scale] = held_out_loss(held)
    return min(losses, key=losses.__getitem__)


def one_seed(options: Options) -> study.Run:
    """Numbers of all methods in both settings."""
    sets = load(options)
    validated = validated_scale(options, sets)
    return {
        "wide prior": scoring.as_numbers(scoring.score(compare(options, sets, WIDER, extras=True), sets)),
        "validated prior": scoring.as_numbers(scoring.score(compare(options, sets, validated, extras=False), sets)),
        "prior scale of training": {"validated prior": {"scale": validated}},
    }


def main() -> None:
    """Every seed that has not run yet, then the tables."""
    runs, out = study.each_seed(one_seed, "quickstart_seeds", "The quickstart's comparison over several seeds.")
    markdown = study.to_markdown(runs)
    (out / "quickstart.md").write_text(markdown, encoding="utf-8")
    (out / "quickstart.csv").write_text(study.to_csv(runs), encoding="utf-8")
    print(markdown)


if __name__ == "__main__":
    main()
