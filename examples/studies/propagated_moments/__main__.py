"""Propagated moments against drawn weights on torchvision's networks: what diagonal propagation
loses.

    python -m examples.studies.propagated_moments --out docs/tables

Both networks learn 3,000 of MNIST's digits, padded to 32 x 32. Every matrix of weights then has
relative noise of variance 0.01, W (1 + 0.1 e), and the guide's propagated mean and standard
deviation of the logits are compared with those of 200 weights drawn from the same guide, before
and after training, on images that were not learned. Then what may be done about it, on the trained
networks.

Writes propagated_moments.md; about 10 minutes on one core.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn import BNN, data, likelihoods, priors, subset
from bayesnn.curvature import JacobianRows, linearised_variance
from bayesnn.guides import MomentPropagationELBO, MultiplicativeNoise
from bayesnn.guides.multiplicative_noise import PerInput
from bayesnn.moments import Moments, using_moment_rules
from bayesnn.predict import predict, probit

from examples.studies.common.scoring import to_markdown

SMOKE = bool(os.environ.get("SMOKE"))
NOISE = 0.01
DRAWS, FEW = (4, 4) if SMOKE else (200, 20)
TRAIN, IMAGES, OTHERS = (16, 4, 4) if SMOKE else (3000, 200, 100)
EPOCHS, BATCH = (1, 8) if SMOKE else (5, 64)
LAST_BLOCK = {"ResNet-18": ("layer4", "fc"), "DenseNet-121": ("features.denseblock4", "features.norm5", "classifier")}

Images = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sets:
    """Digits to learn, to compare on, and others to calibrate with."""

    train: Images
    test: Images
    others: Images


def load(seed: int) -> Sets:
    """Three channels of 32 x 32, standardised."""

    def prepared(x: Tensor, y: Tensor) -> Images:
        return ((F.pad(x, (2, 2, 2, 2)) - 0.1307) / 0.3081).expand(-1, 3, -1, -1), y

    parts = data.split(*data.mnist5k(), train=TRAIN, validation=OTHERS, generator=torch.Generator().manual_seed(seed))
    train, others, test = (prepared(*part.tensors) for part in parts)
    return Sets(train, (test[0][:IMAGES], test[1][:IMAGES]), others)


def networks() -> dict[str, nn.Module]:
    """As torchvision has them, of ten classes and with random weights."""
    from torchvision import models

    return {"ResNet-18": models.resnet18(num_classes=10), "DenseNet-121": models.densenet121(num_classes=10)}


def trained(net: nn.Module, train: Images) -> nn.Module:
    """A copy of the network after a few epochs of Adam."""
    net, (x, y) = copy.deepcopy(net).train(), train
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            optimizer.zero_grad()
            F.cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def noisy(net: nn.Module) -> MultiplicativeNoise:
    """The guide: relative noise on every matrix of weights."""
    matrices = [name for name, value in net.named_parameters() if value.dim() > 1]
    model = BNN(net, subset.named(net, *matrices), priors.normal(1.0), likelihoods.categorical, size=TRAIN)
    return MultiplicativeNoise(model, family=PerInput(noise=NOISE))


class Case:
    """A network, and what its guide and its draws say of the test images."""

    def __init__(self, name: str, net: nn.Module, sets: Sets) -> None:
        self.name, self.net, self.sets, self.guide = name, net, sets, noisy(net)
        x, self.y = sets.test
        pyro.set_rng_seed(1)
        with torch.no_grad():
            self.logits = net(x)
        both = torch.cat([x, sets.others[0]])
        outputs = predict(self.guide, both, DRAWS + FEW * 2, chunk=100)
        self.drawn, self.few = outputs[:DRAWS, :IMAGES], outputs[DRAWS:, :IMAGES]
        self.calibration = outputs[DRAWS : DRAWS + FEW, IMAGES:]
        self.mean, self.sd = self.drawn.mean(0), self.drawn.std(0)

    @cached_property
    def propagated(self) -> dist.TorchDistribution:
        """One pass of moments."""
        return self.guide.output_distribution(self.sets.test[0])

    @property
    def accuracy(self) -> float:
        """Of the network itself."""
        return float((self.logits.argmax(1) == self.y).float().mean())

    def apart(self, mean: Tensor) -> float:
        """How far means are from those of the draws, the median in drawn standard deviations."""
        return float(((mean - self.mean).abs() / self.sd).median())


def quartiles(ratio: Tensor) -> str:
    """Median and quartiles."""
    low, middle, high = ratio.flatten().quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's."""
    ranks = torch.stack([t.flatten().argsort().argsort() for t in (a, b)]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def cpu_seconds(action: Callable[[], object], repeats: int = 3) -> float:
    """The median of one call."""
    times = []
    for _ in range(1 if SMOKE else repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return statistics.median(times)


def step_ratio(case: Case) -> float:
    """CPU time of one step of `MomentPropagationELBO` over one of plain training, Adam both."""
    x, y = (part[:BATCH] for part in case.sets.train)
    net, guide = copy.deepcopy(case.net), noisy(case.net)
    loss = MomentPropagationELBO()(guide.model, guide)

    def step(module: nn.Module, value: Callable[[], Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.Adam(module.parameters(), 1e-4)

        def once() -> None:
            optimizer.zero_grad()
            found = value()
            found.backward()
            assert found.isfinite()
            optimizer.step()

        once()
        return once

    plain = cpu_seconds(step(net, lambda: F.cross_entropy(net(x), y)))
    return cpu_seconds(step(guide, lambda: loss(x, y))) / plain


def row_of_means(case: Case, state: str) -> list[str]:
    """How far the propagated moments are from the drawn ones."""
    cells = [f"{case.accuracy:.3f}", f"{case.guide.raw.numel():,}"]
    cells += [f"{case.apart(case.propagated.mean):.2f}", f"{case.apart(case.logits):.2f}"]
    cells += [quartiles(case.propagated.stddev / case.sd), f"{step_ratio(case):.1f}"]
    return [f"{case.name}, {state}", *cells]


def dependent(pool: Callable[..., Tensor]) -> Callable[..., Moments]:
    """The rule of an average over positions that move as one: deviations are
    averaged, not variances.
    """

    def rule(input: Moments, *args: Any, **kwargs: Any) -> Moments:
        return Moments(pool(input.loc, *args, **kwargs), pool(input.variance.sqrt(), *args, **kwargs).square())

    return rule


def remedies(case: Case) -> dict[str, tuple[Tensor, float]]:
    """{name: (standard deviations of the test images' logits, forward passes
    that a prediction takes)}.
    """
    x, guide = case.sets.test[0], case.guide
    with torch.no_grad():
        forward = cpu_seconds(lambda: [case.net(part) for part in x.split(50)])
    one_pass = cpu_seconds(lambda: guide.output_distribution(x, chunk=50)) / forward
    one_draw = cpu_seconds(lambda: predict(guide, x, 5, chunk=50)) / forward / 5
    start = time.process_time()
    linear = guide.linearised_distribution(x).stddev
    cost = (time.process_time() - start) / forward
    with using_moment_rules({pool: dependent(pool) for pool in (F.avg_pool2d, F.adaptive_avg_pool2d)}):
        pooled = guide.output_distribution(x).stddev
    there = guide.output_distribution(case.sets.others[0])
    factor = ((case.calibration - there.mean).square() / there.variance).mean().sqrt()
    single = (case.calibration - there.mean).square().mean().sqrt()
    return {
        "propagated": (case.propagated.stddev, one_pass),
        "propagated, averages dependent": (pooled, one_pass),
        "propagated, times one factor": (factor * case.propagated.stddev, one_pass),
        "one number for all": (single.expand_as(case.sd), one_pass),
        "linearised_distribution": (linear, cost),
        f"{FEW // 2} draws": (case.few[FEW : FEW + FEW // 2].std(0), FEW // 2 * one_draw),
        f"{2 * FEW} draws": (case.few.std(0), 2 * FEW * one_draw),
    }


def rows_of_remedies(case: Case) -> list[list[str]]:
    """Standard deviations beside the drawn ones, and the probit prediction with each."""

    def nll(sd: Tensor) -> float:
        p = probit(likelihoods.categorical, dist.Normal(case.propagated.mean, sd).to_event(1))
        return -float(p.log_prob(case.y).mean())

    rows = []
    for name, (sd, cost) in remedies(case).items():
        ratio = sd / case.sd
        ranks = f"{rank_correlation(sd, case.sd):.2f}" if sd.std() > 1e-6 * sd.mean() else ""
        cells = [quartiles(ratio), f"{ratio.log().std():.2f}", ranks]
        rows.append([f"{case.name}: {name}", *cells, f"{nll(sd):.4f}", f"{cost:.0f}"])
    return rows


def note_on(case: Case) -> str:
    """What is not in the tables of a trained network."""
    probs = case.drawn.softmax(-1).mean(0)
    drawn, plain = F.nll_loss(probs.log(), case.y), F.cross_entropy(case.logits, case.y)
    weights = case.guide.moments()

    def variance(names: list[str]) -> Tensor:
        rows = JacobianRows(case.net, {name: weights[name].loc for name in names}, dict.fromkeys(names))
        return linearised_variance(rows, case.sets.test[0][:50], {name: weights[name].variance for name in names})

    last = [name for name in weights if name.startswith(LAST_BLOCK[case.name])]
    share = (variance(last) / variance(list(weights))).mean()
    return (
        f"{case.name}: NLL of {DRAWS} draws {drawn:.4f}, of the network itself {plain:.4f} nats; the last block's "
        f"weights make {share:.0%} of the logits' variance."
    )


def main() -> None:
    """Two tables."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.propagated_moments",
        description="Propagated moments against drawn weights on torchvision's networks.",
    )
    parser.add_argument("--out", type=Path, default=Path("quickstart-output"), help="folder of the table")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the networks and the draws")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    sets = load(given.seed)
    first, second, notes = [], [], []
    for name, net in networks().items():
        first.append(row_of_means(Case(name, net.eval(), sets), "random"))
        case = Case(name, trained(net, sets.train), sets)
        first.append(row_of_means(case, "trained"))
        second += rows_of_remedies(case)
        notes.append(note_on(case))
        print(f"{name} done", flush=True)
    header = ["network", "accuracy", "numbers beside the means", "mean apart (sd)", "network's own output apart (sd)"]
    means = to_markdown([*header, "propagated / drawn sd", "step / plain step"], first)
    header = ["standard deviations", "ratio to drawn sd", "spread of log ratio", "rank correlation", "NLL (nats)"]
    spreads = to_markdown([*header, "forward passes"], second)
    text = (
        f"{means}\nMedians over {IMAGES} test images and ten logits, ratios with quartiles; {DRAWS} draws.\n\n"
        f"{spreads}\nNLL is that of the probit prediction with the propagated mean. "
        f"The factor and the single number are from {FEW} draws on {OTHERS} other images. {' '.join(notes)}\n"
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "propagated_moments.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
