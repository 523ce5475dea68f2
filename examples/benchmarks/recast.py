"""What sampling RECaST's posterior costs, beside Pyro's NUTS on latent effects and on quadrature
likelihoods.

250 targets: of the published linear design (noise 1), of the model itself (f ~ N(0, 2^2), delta
.9, gamma .3, sigma .5), and labels of the model itself. Double precision, one thread, CPU time;
densities are medians over rounds. ESS is the smallest bulk ESS of the numbers, and all CPU time
counts, warming up too, a third of every chain. Ours runs in full, 4 chains of 500 + 1,000, before,
between and after the others, and its median counts. The others run one short chain, Pyro's
`NUTS(model)` as it is, and their ESS a second is taken as that of longer ones. Of the quadrature
rules with 200, 400 and 1,000 nodes the cheapest is measured whose log density errs by less than
0.05 nats over draws of the posterior, or else the most accurate.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import arviz
import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.integrator import potential_grad
from torch import Tensor

from bayesnn.guides import RECaSTGuide, recast_nuts
from bayesnn.guides.recast.guide import Density, laplace
from bayesnn.guides.recast.slopes import AutogradSlopes, slopes_of
from bayesnn.models import recast
from bayesnn.models.recast import RECaST
from bayesnn.transfer import linear_design

from examples.benchmarks.recast_peers import (
    LogLikelihood,
    PyroModel,
    by_quadrature,
    centred,
    line,
    panels,
    reparameterised,
    tangent,
)
from examples.benchmarks.timing import Action, interleaved, markdown, options, write

SMOKE = bool(os.environ.get("SMOKE"))
N = 20 if SMOKE else 250
CHAINS, WARMUP, DRAWS = (2, 10, 20) if SMOKE else (4, 500, 1000)
SHORT = {"latent": (5, 10), "quadrature": (5, 10)} if SMOKE else {"latent": (50, 100), "quadrature": (150, 300)}
COUNTS = (200, 400, 1000)
TOLERANCE = 0.05
RATIO = 50


@dataclass(frozen=True)
class Problem:
    """Data and the model of them; which quadrature rules suit it."""

    label: str
    model: RECaST
    f: Tensor
    y: Tensor
    rules: Mapping[str, Callable[[int], LogLikelihood]]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the numbers."""
        return tuple(self.model.priors)


@dataclass(frozen=True)
class Measured:
    """A run of a sampler."""

    wall: float
    cpu: float
    gradients: float
    r_hat: float
    ess: float

    @property
    def rate(self) -> float:
        """Effective draws a CPU second."""
        return self.ess / self.cpu


def problems() -> list[Problem]:
    """The published design, and both responses of the model itself."""
    design = linear_design(0, n_train=N, noise=1.0)
    assert isinstance(design.source, torch.nn.Module)
    f = 2 * torch.randn(N, dtype=torch.double)
    eta = (0.9 + 0.3 * torch.empty_like(f).cauchy_()) * f
    y, labels = eta + 0.5 * torch.randn_like(f), (torch.rand_like(f) < eta.sigmoid()).double()
    rules = {"tangent": tangent, "line": line}
    return [
        Problem(
            "published design",
            recast.continuous(None),
            design.source(design.x_train).squeeze(1),
            design.y_train,
            rules,
        ),
        Problem("the model itself", recast.continuous(None), f, y, rules),
        Problem("labels", recast.binary(None), f, labels, {"two panels": panels}),
    ]


def timed(run: Callable[[], tuple[MCMC, float]], names: tuple[str, ...]) -> Measured:
    """Wall and CPU seconds of a run, its gradients an iteration, and the worst of the numbers."""
    wall, cpu = time.perf_counter(), time.process_time()
    chains, gradients = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    held = chains.get_samples(group_by_chain=True)
    draws = [held[name].detach().numpy() for name in names]
    r_hat = max(float(arviz.rhat(one)) for one in draws) if chains.num_chains > 1 else math.nan
    return Measured(wall, cpu, gradients, r_hat, min(float(arviz.ess(one)) for one in draws))


def ours(problem: Problem) -> Measured:
    """`recast_nuts`."""

    def run() -> tuple[MCMC, float]:
        chains = recast_nuts(
            problem.model, problem.f, problem.y, draws=DRAWS, warmup=WARMUP, chains=CHAINS, progress=False
        )
        leaps: Mapping[str, int] = chains.diagnostics()["leaps"]
        return chains, sum(leaps.values()) / (CHAINS * (WARMUP + DRAWS))

    return timed(run, problem.names)


def theirs(problem: Problem, model: PyroModel, length: tuple[int, int]) -> Measured:
    """Pyro's NUTS on a Pyro model, whose calls are counted."""
    warmup, draws = length
    calls = [0]

    def counted(f: Tensor, y: Tensor) -> None:
        calls[0] += 1
        model(f, y)

    def run() -> tuple[MCMC, float]:
        chains = MCMC(NUTS(counted), num_samples=draws, warmup_steps=warmup, disable_progbar=True)
        chains.run(problem.f, problem.y)
        return chains, calls[0] / (warmup + draws)

    return timed(run, problem.names)


def quadrature(problem: Problem) -> tuple[str, PyroModel]:
    """The cheapest rule that is accurate enough, else the most accurate one."""
    guide = RECaSTGuide(problem.model).fit(problem.f, problem.y)
    draws = guide.corrected(problem.f, problem.y, 100).draws
    exact = problem.model.log_joint(draws, problem.f, problem.y)
    prior = problem.model.log_joint(draws, problem.f[:0], problem.y[:0])
    found = []
    for count in COUNTS:
        for name, rule in problem.rules.items():
            log_likelihood = rule(count)
            each = [{site: value[i] for site, value in draws.items()} for i in range(100)]
            total = torch.stack([log_likelihood(one, problem.f, problem.y).sum() for one in each])
            errors = total - (exact - prior)
            worst = float((errors - errors.mean()).abs().max())
            found.append((worst, f"{count} nodes, {name}", log_likelihood))
    accurate = [one for one in found if one[0] < TOLERANCE] or [min(found, key=lambda one: one[0])]
    error, name, log_likelihood = accurate[0]
    return f"quadrature of {name} (errs by {error:.2g} nats)", by_quadrature(log_likelihood, *problem.names)


def samplers(problem: Problem, rule: tuple[str, PyroModel]) -> list[tuple[str, ...]]:
    """Ours between the others."""
    latent = (
        {"latent effects, centred": centred, "latent effects, tan": reparameterised} if problem.model.with_noise else {}
    )
    own, others = [ours(problem)], {}
    for kind, peers in (("latent", latent), ("quadrature", dict([rule]))):
        for label, model in peers.items():
            others[label] = theirs(problem, model, SHORT[kind])
            own.append(ours(problem))
    middle = sorted(own, key=lambda one: one.rate)[len(own) // 2]
    bounds = ("30 s, 1.01, 1,000", f"{RATIO}" if problem.model.with_noise else "")
    rows = [_row(problem.label, "recast_nuts", middle, "", bounds[0])]
    return rows + [_row(problem.label, k, v, f"{middle.rate / v.rate:.0f}", bounds[1]) for k, v in others.items()]


def _row(data: str, label: str, found: Measured, ratio: str, bound: str) -> tuple[str, ...]:
    times = (f"{found.wall:.1f} s", f"{found.cpu:.1f} s", f"{found.gradients:.1f}")
    r_hat = "" if math.isnan(found.r_hat) else f"{found.r_hat:.3f}"
    return (f"{data}: {label}", *times, r_hat, f"{found.ess:,.0f}", f"{found.rate:.3g}", ratio, bound)


def densities(problem: Problem, rule: tuple[str, PyroModel]) -> dict[str, Action]:
    """Log density and gradient at the mode."""
    density = Density(problem.model, problem.f, problem.y)
    at = laplace(density)[0].numpy()
    own, general = slopes_of(density), AutogradSlopes(density)
    start, potential, _, _ = initialize_model(rule[1], (problem.f, problem.y))
    values = {name: torch.tensor(one) for name, one in zip(start, _in_order(start, problem, at), strict=True)}
    actions: dict[str, Action] = {"what recast_nuts calls": lambda: own(at)}
    if not isinstance(own, AutogradSlopes):
        actions["by autograd"] = lambda: general(at)
    actions[f"Pyro, {rule[0]}"] = lambda: potential_grad(potential, values)
    return actions


def _in_order(start: Mapping[str, Tensor], problem: Problem, at: np.ndarray) -> list[float]:
    return [float(at[problem.names.index(name)]) for name in start]


def costs(problem: Problem, rule: tuple[str, PyroModel], repeats: int) -> list[tuple[str, ...]]:
    """Densities, and the guide with its corrected draws."""
    actions = densities(problem, rule)
    times = interleaved(actions, 10 * repeats, problem.label)
    label = f"{problem.label}: log density and gradient, "
    rows = [
        (label + name, f"{statistics.median(found) * 1e3:.3g} ms", "" if name.startswith("Pyro") else "1 ms")
        for name, found in times.items()
    ]
    khats = []

    def corrected() -> None:
        guide = RECaSTGuide(problem.model).fit(problem.f, problem.y)
        khats.append(guide.corrected(problem.f, problem.y, 1000).khat)

    found = interleaved({"guide": corrected}, max(1, repeats // 4), f"{problem.label}, guide")["guide"]
    seconds = f"{statistics.median(found):.2g} s, k-hat {statistics.median(khats):.2f}"
    return [*rows, (f"{problem.label}: RECaSTGuide.fit and 1,000 corrected draws", seconds, "2 s")]


def main() -> None:
    """Densities and guides, then samplers."""
    given = options(__doc__, "recast.md")
    pyro.set_rng_seed(0)
    rows, chains = [], []
    for problem in problems():
        rule = quadrature(problem)
        rows += costs(problem, rule, given.repeats)
        chains += samplers(problem, rule)
    header = ("", "wall", "CPU", "gradients an iteration", "R-hat", "ESS", "ESS a CPU second", "ours over it", "bound")
    write(given.out, markdown(("", "CPU time", "bound"), rows) + "\n" + markdown(header, chains))


if __name__ == "__main__":
    main()
