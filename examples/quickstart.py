"""The main job: a network that reads digits becomes Bayesian, and is judged.

    python -m examples.quickstart --out quickstart-output

1. Train LeNet on 1,000 images of MNIST to its MAP, as usual too sure of itself.
2. Make weights random: those of the last layer, or the 1,000 with the largest marginal variance.
3. Fit a Laplace approximation to each, its prior scale chosen by cross-validation.
4. Compare MAP, both Laplace approximations and an ensemble of five networks on the other 4,000
   images, and on letters, turned digits and digits of another scanner.

It writes table, figures, an ArviZ file and a page, index.html, that shows all of it. About a
minute and a half on two cores; SMOKE=1 in the environment shortens it to seconds.
"""

import time
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import to_arviz
from bayesnn.guides import Laplace
from bayesnn.predict import predictive

from examples.studies.common import scoring
from examples.studies.common.choice import Rule, choose_scale, scale_of
from examples.studies.common.datasets import batches, load
from examples.studies.common.network import train_all
from examples.studies.common.options import Options, parse
from examples.studies.quickstart import figures, page


def rules(options: Options) -> dict[str, Rule]:
    """Which weights are random: the two answers that are compared."""
    return {
        "last layer": lambda net, data: subset.last_layer(net),
        "sub-network": lambda net, data: subset.largest_variance(
            net, batches(data), likelihoods.categorical, k=options.weights
        ),
    }


def laplace(net: nn.Module, chosen: subset.Subset, scale: float, data: TensorDataset) -> Laplace:
    """The whole method."""
    model = BNN(net, chosen, priors.normal(scale), likelihoods.categorical, size=len(data))
    return Laplace(model).fit(batches(data))


def probabilities(guide: Laplace, x: Tensor, draws: int) -> Tensor:
    """Class probabilities of every draw, [draw, batch, class], of the linearised network."""
    return predictive(guide, x, draws, linearised=True).component_probs


def main() -> None:
    """The whole run."""
    options, start = parse(), time.perf_counter()
    # Networks this small gain little from several threads, and lose much where another process
    # wants the cores.
    torch.set_num_threads(1)
    sets = load(options)
    members, history, held = train_all(options, sets.train)
    net = members[0]
    torch.manual_seed(options.seed)

    choices, guides, evidence = {}, {}, {}
    for name, rule in rules(options).items():
        choices[name] = choose_scale(rule, held, name)
        guides[name] = laplace(net, rule(net, sets.train), choices[name].scale, sets.train)
        evidence[name] = scale_of(guides[name].maximise_evidence().model.prior)

    # {method: {set: class probabilities of every draw, [draw, batch, class]}}
    predictions = {"MAP": scoring.predict_everywhere(lambda x: net(x).softmax(-1).unsqueeze(0), sets, "MAP")}
    for name, guide in guides.items():
        predictor = partial(probabilities, guide, draws=options.draws)
        predictions[f"Laplace, {name}"] = scoring.predict_everywhere(predictor, sets, name)
    predictions[f"ensemble of {options.members}"] = scoring.predict_everywhere(
        lambda x: torch.stack([member(x).softmax(-1) for member in members]), sets, "ensemble"
    )
    scores = scoring.score(predictions, sets)

    guide = guides["last layer"]
    tree = to_arviz(guide, *sets.train.tensors, draws=options.draws, progress=True)
    tree.to_netcdf(str(options.out / "laplace.nc"))
    pictures = figures.draw_all(sets, history, choices, evidence, predictions)
    seconds = time.perf_counter() - start
    report = page.Report(options, sets, choices, evidence, scores, seconds)
    page.write(report, predictions, pictures, tree)

    print(f"\n{len(sets.test.x):,} test images; mean ± standard error; AUROC by predictive entropy, OOD positive\n")
    print(scoring.to_text(*scoring.as_table(scores)))
    for name, choice in choices.items():
        print(f"prior scale of the {name}: {choice.scale:.3g} by cross-validation, {evidence[name]:.3g} by evidence")
    print(f"\nOpen {options.out / 'index.html'} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
