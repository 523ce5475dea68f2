"""When vmap over weight draws beats a loop: the measurement behind `functional.worth_vectorising`.

32 draws of all weights, CPU time on one thread, medians of interleaved rounds. A speed-up above 1
favours vmap.
"""

import argparse
import os
import statistics
from pathlib import Path

import torch
from torch import nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.functional import worth_vectorising
from bayesnn.guides import MeanField
from bayesnn.predict import draw, predict

from examples.benchmarks.nets import lenet, mlp
from examples.benchmarks.timing import interleaved, markdown, write

NETS = {
    "small 784-32-10": (lambda: nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)), (784,)),
    "LeNet": (lenet, (1, 28, 28)),
    "MLP": (mlp, (784,)),
}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/tables/vmap_rule.md"), help="where the table goes")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved rounds")
    options = parser.parse_args()
    smoke = bool(os.environ.get("SMOKE"))
    torch.set_num_threads(1)
    rows = []
    for name, (make, shape) in NETS.items():
        net = make().eval()
        model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical)
        held = draw(MeanField(model), 4 if smoke else 32)
        for inputs in (1, 8) if smoke else (1, 8, 32, 128, 1_000):
            x = torch.rand(inputs, *shape)
            actions = {
                "loop": lambda m=model, h=held, v=x: predict(h, v, 32, model=m, vectorised=False),
                "vmap": lambda m=model, h=held, v=x: predict(h, v, 32, model=m, vectorised=True),
            }
            times = interleaved(actions, 1 if smoke else options.repeats, f"{name}, {inputs} inputs")
            speed_up = statistics.median(a / b for a, b in zip(times["loop"], times["vmap"], strict=True))
            chosen = "vmap" if worth_vectorising(len(model.subset), inputs, torch.device("cpu")) else "loop"
            rows.append((name, f"{inputs:,}", f"{len(model.subset) * inputs:,}", f"{speed_up:.2f}", chosen))
    write(options.out, markdown(("network", "inputs", "weights x inputs", "loop / vmap", "the rule takes"), rows))


if __name__ == "__main__":
    main()
