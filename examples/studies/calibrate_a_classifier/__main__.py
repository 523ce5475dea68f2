"""Calibrate a trained classifier by retraining its head: TST and V-TST on digits, by five seeds.

    python -m examples.studies.calibrate_a_classifier --seeds 0 1 2 3 4 --out docs/tables

Stage one is a convolutional network of 314,506 weights on 800 images of MNIST, without weight
decay: accurate and too sure of itself. Stage two freezes its features and trains a new head on the
same images: two-stage training (TST), and its variational form (V-TST), whose head has a latent
vector z for each image. The 200 other images choose the epoch, the temperature, and where it says
so the weight of the KL divergence. 4,000 images, letters and turned digits are looked at once, in
the end.

Writes calibrate_a_classifier.md and .png: means over seeds with standard errors, paired
differences to MAP, and what the KL weight does. About two minutes a seed on one core; what a seed
gave is kept under --runs, so a stopped run goes on.
"""

import math
import os
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import TensorDataset

from bayesnn.likelihoods import categorical
from bayesnn.predict import PredictiveDistribution, ensemble_outputs

from examples.studies.calibrate_a_classifier import report
from examples.studies.common import scoring, study
from examples.studies.common.datasets import LETTERS, ROTATED, load
from examples.studies.common.heads import KL_WEIGHTS, LATENTS, Head, linear_head, two_stage, variational
from examples.studies.common.options import Options
from examples.studies.common.predictors import Predictor, cooled, log_losses, softmax
from examples.studies.common.scoring import Predictions
from examples.studies.common.temperature import TEMPERATURES
from examples.studies.common.training import Setting, Task, point

SMOKE = bool(os.environ.get("SMOKE"))
EPOCHS, HELD, MEMBERS = (2, 20, 2) if SMOKE else (30, 200, 4)
NONE = Setting(math.inf)
"""No weight decay."""


def predictors(task: Task, held: TensorDataset) -> tuple[dict[str, Predictor], dict[str, float]]:
    """{method: predictor}, MAP first, and {method: CPU seconds of training}."""
    seconds = {}
    point(replace(task, epochs=1), NONE)  # a first training is slower than those after it
    start = time.process_time()
    net = point(task, NONE)
    seconds["MAP"] = time.process_time() - start
    found: dict[str, Predictor] = {"MAP": partial(softmax, net)}
    at = {t: partial(cooled, found["MAP"], t) for t in TEMPERATURES.tolist()}
    losses = {t: float(log_losses(one, *held.tensors).mean()) for t, one in at.items()}
    found[report.COOLED] = at[min(losses, key=losses.__getitem__)]
    others = [point(replace(task, seed=task.seed + i), NONE) for i in range(1, MEMBERS)]
    found[f"ensemble of {MEMBERS}"] = lambda x: (
        PredictiveDistribution(categorical(ensemble_outputs([net, *others], x))).component_probs
    )
    heads: dict[str, Head] = {report.LINEAR: linear_head(net, task, held)}
    for latent in LATENTS:
        heads[f"TST, Z = {latent}"] = two_stage(net, task, held, latent)
        sweep = {weight: variational(net, task, held, latent, weight) for weight in KL_WEIGHTS}
        heads |= {report.swept(latent, weight): head for weight, head in sweep.items()}
        heads[f"V-TST, Z = {latent}, KL weight 1 / Z"] = variational(net, task, held, latent, 1 / latent)
        heads[f"V-TST, Z = {latent}, KL weight chosen"] = min(sweep.values(), key=lambda head: head.loss)
    for name, head in heads.items():
        found[name], seconds[name] = head.predictor, seconds["MAP"] + head.seconds
    return found, seconds


def one_seed(options: Options) -> dict[str, dict[str, Any]]:
    """{method: numbers}."""
    sets = load(options)
    sets = replace(sets, outside={kind: sets.outside[kind] for kind in (LETTERS, ROTATED)})
    x, y = sets.train.tensors
    task = Task(TensorDataset(x[HELD:], y[HELD:]), 100 * options.seed, EPOCHS)
    methods, seconds = predictors(task, TensorDataset(x[:HELD], y[:HELD]))
    found: dict[str, Predictions] = {}
    for name, predictor in methods.items():
        torch.manual_seed(options.seed)
        found[name] = scoring.predict_everywhere(predictor, sets, name)
    rows = scoring.as_numbers(scoring.score(found, sets))
    confidence = {name: float(of["test"].mean(0).amax(-1).mean()) for name, of in found.items()}
    return {
        name: {**row, "confidence": confidence[name], "seconds": seconds.get(name, math.nan)}
        for name, row in rows.items()
    }


def main() -> None:
    """Every seed that has not run yet, then table and figure."""
    runs, out = study.each_seed(one_seed, "calibrate_a_classifier", "TST and V-TST on digits, by several seeds.")
    markdown = report.to_markdown(runs)
    (out / "calibrate_a_classifier.md").write_text(markdown, encoding="utf-8")
    report.figure(runs).savefig(study.pictures(out) / "calibrate_a_classifier.png", dpi=130)
    print(markdown)


if __name__ == "__main__":
    main()
