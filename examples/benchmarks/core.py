"""What Bayes costs: a mean-field step, a 32-draw predictive and the import, as ratios to plain
PyTorch, beside Pyro.

A step is one of Adam on 128 images; a predictive is 32 draws of all weights times 1,000 inputs in
chunks of 50. CPU time on one thread in float32, medians of interleaved rounds. Bounds are those
that the project set itself.
"""

import copy
import os
import statistics
import subprocess
import sys
import time

import pyro
import torch
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import MeanField, MeanFieldELBO
from bayesnn.predict import draw, predict

from examples.benchmarks.nets import lenet, mlp
from examples.benchmarks.timing import Action, interleaved, markdown, options, row, write

NETS = {"MLP": (mlp, (784,)), "LeNet": (lenet, (1, 28, 28))}
STEP_BOUND = {"MLP": 2.8, "LeNet": 1.45}
DRAWN_BOUND = {"MLP": 1.45, "LeNet": 1.1}
GIVEN_BOUND = 1.05
IMPORT_BOUND = 0.3
DRAWS = 32
INPUTS = 50 if os.environ.get("SMOKE") else 1_000

Row = tuple[str, ...]


def stepper(loss: nn.Module, parameters: list[nn.Parameter], batch: tuple[Tensor, ...]) -> Action:
    """One Adam step of a loss module."""
    optimizer = torch.optim.Adam(parameters)

    def step() -> None:
        optimizer.zero_grad()
        loss(*batch).backward()
        optimizer.step()

    return step


class CrossEntropy(nn.Module):
    """The deterministic step's loss."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean negative log likelihood, nats."""
        return F.cross_entropy(self.net(x), y)


def steps(name: str, repeats: int) -> list[Row]:
    """Mean-field variational inference: one step."""
    make, shape = NETS[name]
    x, y = torch.rand(128, *shape), torch.randint(0, 10, (128,))
    net = make().eval()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=1_000)
    plain = CrossEntropy(copy.deepcopy(net))
    ours = MeanFieldELBO()(model, MeanField(model))
    actions = {
        "plain": stepper(plain, list(plain.parameters()), (x, y)),
        "MeanField, MeanFieldELBO": stepper(ours, list(ours.parameters()), (x, y)),
    }
    actions |= autonormal(model, (x, y))
    times = interleaved(actions, repeats, f"steps, {name}")
    bounds = {"MeanField, MeanFieldELBO": f"{STEP_BOUND[name]}"}
    return [row(f"{name}: step, {action}", times, action, bounds.get(action, "")) for action in actions]


def autonormal(model: BNN, batch: tuple[Tensor, ...]) -> dict[str, Action]:
    """Steps of Pyro's own guide under its two ELBOs."""
    actions = {}
    for elbo in (Trace_ELBO, TraceMeanField_ELBO):
        pyro.clear_param_store()  # AutoNormals of different models share their storage by name
        loss = elbo()(model, AutoNormal(model))
        loss(*batch)
        actions[f"Pyro AutoNormal, {elbo.__name__}"] = stepper(loss, list(loss.parameters()), batch)
    return actions


def predictives(name: str, repeats: int) -> list[Row]:
    """32 draws of all weights at `INPUTS` inputs."""
    make, shape = NETS[name]
    x = torch.rand(INPUTS, *shape)
    net = make().eval()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=1_000)
    guide = MeanField(model)
    held = draw(guide, DRAWS)
    parts = x.split(50)

    def plain() -> None:
        with torch.no_grad():
            for _ in range(DRAWS):
                torch.cat([net(part) for part in parts])

    def pyros() -> None:
        for part in parts:
            Predictive(model, posterior_samples=held, return_sites=("_RETURN",))(part)

    actions: dict[str, Action] = {
        "plain": plain,
        "predict, draws given": lambda: predict(held, x, DRAWS, model=model, chunk=50),
        "predict, drawing from the guide": lambda: predict(guide, x, DRAWS, chunk=50),
        "Pyro Predictive, draws given": pyros,
    }
    times = interleaved(actions, repeats, f"predictives, {name}")
    bounds = {"predict, draws given": f"{GIVEN_BOUND}", "predict, drawing from the guide": f"{DRAWN_BOUND[name]}"}
    return [row(f"{name}: {DRAWS} x {INPUTS:,}, {action}", times, action, bounds.get(action, "")) for action in actions]


def imports(repeats: int) -> Row:
    """Seconds that `import bayesnn` takes beyond `import pyro`, whole processes, wall time."""
    seconds: dict[str, list[float]] = {"pyro": [], "bayesnn": []}
    for _ in range(repeats):
        for module in seconds:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-W", "ignore", "-c", f"import {module}"], check=True)
            seconds[module].append(time.perf_counter() - start)
    extra = statistics.median(b - p for b, p in zip(seconds["bayesnn"], seconds["pyro"], strict=True))
    wall = statistics.median(seconds["bayesnn"])
    return ("import bayesnn, beyond import pyro", f"{wall * 1e3:.0f} ms", f"+{extra:.2f} s", f"+{IMPORT_BOUND} s")


def main() -> None:
    """Run all and write the table."""
    given = options(__doc__, "core.md")
    pyro.set_rng_seed(0)
    rows: list[Row] = []
    for name in NETS:
        rows += steps(name, given.repeats)
        rows += predictives(name, max(1, given.repeats // 3))
    rows.append(imports(max(1, given.repeats // 3)))
    write(given.out, markdown(("what", "CPU time", "ratio to plain", "bound"), rows))


if __name__ == "__main__":
    main()
