"""Is it the prior or the normal approximation? Laplace and NUTS on the last layer of the
quickstart's network.

    python -m examples.last_layer_nuts --out docs/tables

Under the prior scale that maximises the evidence, the last layer's Laplace approximation is far
too uncertain. Here NUTS samples the exact posterior of the same Pyro model: where NUTS is
calibrated and Laplace is not, the prior is right and the normal distribution is not. A network
that fits its training images perfectly leaves its last layer a posterior with a cliff on one side
(where an image would be read wrongly) and a plain on the other; the curvature at the mode sees
neither.

The features before the last layer are computed once, so a step of NUTS costs one small matrix
product. Writes last_layer_nuts.md; about ten minutes on one core.
"""

import argparse
import os
from pathlib import Path

import pyro
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, metrics, priors, subset
from bayesnn.guides import Laplace
from bayesnn.predict import Posterior, predict

from examples.studies.common import scoring
from examples.studies.common.datasets import load
from examples.studies.common.network import train
from examples.studies.common.options import parse

SMOKE = bool(os.environ.get("SMOKE"))
# what the quickstart's cross-validation chooses, and what the evidence prefers
SCALES = (0.1, 0.316)
WARMUP, SAMPLES = (3, 3) if SMOKE else (150, 200)

Data = tuple[Tensor, Tensor]


def row(name: str, model: BNN, posterior: Posterior, learned: Data, test: Data) -> list[str]:
    """How a posterior predicts what was learned and what was not."""
    (x, y), (x_test, y_test) = learned, test
    logits = predict(posterior, x, SAMPLES, model=model)
    expected = float(nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits))))
    probs = predict(posterior, x_test, SAMPLES, model=model).softmax(-1).mean(0)
    error = metrics.ece(probs, y_test)
    cells = [f"{expected:.3f}", f"{metrics.nll(probs, y_test):.3f}", scoring.percent(metrics.accuracy(probs, y_test))]
    return [name, *cells, f"{error:.3f}", f"{error.noise_floor:.3f}"]


def main() -> None:
    """Both methods under both priors."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.last_layer_nuts", description="Laplace and NUTS on the same last layer."
    )
    parser.add_argument("--out", type=Path, default=Path("quickstart-output"), help="folder of the table")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the network and the draws")
    given = parser.parse_args()
    options = parse(["--out", str(given.out), "--seed", str(given.seed)])
    torch.set_num_threads(1)
    sets = load(options)
    assert sets.test.y is not None
    net, _ = train(sets.train, seed=100 * options.seed, epochs=options.epochs)
    body, head = net[:-1], net[-1]
    x, y = sets.train.tensors
    with torch.no_grad():
        learned, test = (body(x), y), (body(sets.test.x), sets.test.y)
    header = ["posterior of the last layer", "E[training NLL]", "test NLL", "accuracy (%)", "ECE", "ECE if calibrated"]
    rows = []
    for scale in SCALES:
        pyro.set_rng_seed(options.seed)
        model = BNN(head, subset.everything(head), priors.normal(scale), likelihoods.categorical)
        rows.append(row(f"Laplace, prior scale {scale:g}", model, Laplace(model).fit([learned]), learned, test))
        mcmc = MCMC(NUTS(model, max_tree_depth=6), num_samples=SAMPLES, warmup_steps=WARMUP)
        mcmc.run(*learned)
        rows.append(row(f"NUTS, prior scale {scale:g}", model, mcmc.get_samples(), learned, test))
    note = "NLL in nats; E[...] is the mean over draws of the posterior; ± are standard errors over test images."
    markdown = f"{scoring.to_markdown(header, rows)}\n{note}\n"
    (given.out / "last_layer_nuts.md").write_text(markdown, encoding="utf-8")
    print(markdown)


if __name__ == "__main__":
    main()
