"""Stochastic-gradient Hamiltonian Monte Carlo, with cyclical steps."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from bayesnn.fit.batches import first_batch, length
from bayesnn.fit.training_size import TrainingSize
from bayesnn.functional import Inputs, alone, progress_bar, to_device
from bayesnn.sites import latent_nodes
from bayesnn.tempering import noted_draws, of_sampler

Model = Callable[[Inputs, Tensor], object]
Loader = Iterable[tuple[Inputs, Tensor]]


def sghmc(
    model: Model,
    loader: Loader,
    *,
    epochs: int,
    step: float,
    cycles: int = 1,
    draws: int = 10,
    friction: float = 0.1,
    explore: float = 0.5,
    temperature: float = 1.0,
    start: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Draws of the posterior from a noisy walk over minibatches, {site: [draw, *event]};
    `friction=1` is SGLD.

    With U(w) = -log p(y, w) of all data, estimated from a batch,

        p <- (1 - a) p - sqrt(e) grad U(w) + sqrt(2 a T) noise,    w <- w + sqrt(e) p.

    In every cycle the step e falls along half a cosine from `step` to 0; the first part explores
    without noise, in the rest `draws` states are kept, evenly spaced. Several cycles find several
    modes. Momenta p have the unit that does not change with e: with v = sqrt(e) p in its place, as
    in the paper on cycles, falling steps heat the walk. Nothing is rejected, so the steps have to
    be small: halve `step` until the answers stay. For data that fit into one batch, Pyro's NUTS is
    the better choice.

    The dict carries its temperature to `to_arviz`, which reports it as the attribute
    `temperature`, and through copies, `draw` and files; a dict that you make of its items does
    not. See `bayesnn.tempering.noted_draws`.

    Args:
        model: any Pyro model called with (x, y) whose latent sites are unconstrained, and whose
            log joint density of a batch is scaled to all data: `BNN(..., size=N)`.
        loader: batches (x, y), one at least, that can be iterated again and again: a `DataLoader`
            or a list; shuffled anew each time it is iterated, since in a fixed order their noise
            is periodic and a walk with momentum may resonate with it. A model with a `size` is
            compared with it, as in `fit`.
        epochs: passes over it in all cycles together.
        step: e at the start of a cycle, in squared units of the weights per nat; about 0.1 times
            the smallest eigenvalue of the posterior's covariance, up to 0.5 with `friction=1`.
        cycles: how many.
        draws: kept of each cycle; cycles x draws in all.
        friction: a, in (0, 1].
        explore: the share of a cycle before noise and draws.
        temperature: T of p(w | y)^(1 / T), likelihood and prior together: 1 samples the posterior,
            0 is an optimiser, less than 1 a cold posterior. It is no `kl_weight`, which tempers
            the likelihood alone; for a prior N(0, s^2) it is the weight T under the prior N(0, T
            s^2).
        start: {site: value}; by default what the model's `values()` says, otherwise a draw of the
            prior.
        generator: of the noise.
        progress: a tqdm bar over steps.

    Raises:
        ValueError: options out of range; a latent site that is constrained or discrete; fewer
            steps than draws; several batches for a model of size=None; more examples than `size`.
        TypeError: a loader that can be read only once.
        FloatingPointError: the walk left the finite numbers.

    References: Welling and Teh (2011); Chen, Fox, Guestrin (2014), Stochastic gradient Hamiltonian
    Monte Carlo; Zhang, Li, Zhang, Chen, Wilson (2020), Cyclical stochastic gradient MCMC for
    Bayesian deep learning.

    >>> from torch import nn
    >>> from bayesnn import BNN, likelihoods, priors, subset
    >>> net = nn.Linear(2, 1)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0), size=20)
    >>> data = [(torch.randn(10, 2), torch.randn(10, 1)) for _ in range(2)]
    >>> held = sghmc(model, data, epochs=50, step=0.01, draws=5, progress=False)
    >>> {site: value.shape for site, value in held.items()}
    {'weight': torch.Size([5, 1, 2]), 'bias': torch.Size([5, 1])}
    """
    _check(epochs, step, cycles, draws, friction, explore, temperature)
    first = first_batch(loader, "sghmc")
    size = TrainingSize("sghmc", model, loader)
    per_epoch = length(loader) or _counted(loader, size)
    plan = _Plan(max(1, epochs * per_epoch // cycles), step, explore, draws)
    w = _start(model, start, first)
    p = {site: torch.zeros_like(value) for site, value in w.items()}
    device = next(iter(w.values())).device
    kept: list[dict[str, Tensor]] = []
    stream = _forever(loader, size)
    with progress_bar(desc="sghmc", unit="step", show=progress, total=cycles * plan.steps) as bar:
        for number in range(cycles * plan.steps):
            x, y = next(stream)
            k = number % plan.steps
            gradient = _gradient(model, w, to_device(x, device), y.to(device))
            root = math.sqrt(plan.size(k))
            noise = math.sqrt(2 * friction * temperature) if plan.samples(k) else 0.0
            for site, value in w.items():
                p[site].mul_(1 - friction).sub_(gradient[site], alpha=root)
                if noise:
                    drawn = torch.randn(value.shape, dtype=value.dtype, device=value.device, generator=generator)
                    p[site].add_(drawn, alpha=noise)
                w[site] = value + root * p[site]
            if plan.keeps(k):
                kept.append({site: value.clone() for site, value in w.items()})
            bar.update()
    found = {site: torch.stack([one[site] for one in kept]) for site in w}
    return noted_draws(found, of_sampler(model, float(temperature)))


@dataclass(frozen=True)
class _Plan:
    """One cycle."""

    steps: int
    step: float
    explore: float
    draws: int

    def __post_init__(self) -> None:
        if self.steps - self._first < self.draws:
            raise ValueError(
                f"sghmc: a cycle has {self.steps} steps, of which {self.steps - self._first} sample, but {self.draws} "
                "draws are wanted of it; more epochs, fewer cycles or fewer draws"
            )

    @property
    def _first(self) -> int:
        return math.ceil(self.explore * self.steps)

    def size(self, k: int) -> float:
        """e at step k of a cycle."""
        return self.step / 2 * (math.cos(math.pi * k / self.steps) + 1)

    def samples(self, k: int) -> bool:
        return k >= self._first

    def keeps(self, k: int) -> bool:
        """Whether a draw ends at step k: the last step of each of `draws` equal
        parts of the sampling.
        """
        done, sampling = k + 1 - self._first, self.steps - self._first
        return done > 0 and done * self.draws // sampling > (done - 1) * self.draws // sampling


def _counted(loader: Loader, size: TrainingSize) -> int:
    """The number of batches of a loader without a length: one pass."""
    number = 0
    for number, batch in enumerate(loader, 1):  # noqa: B007
        size.see(batch)
    return number


def _forever(loader: Loader, size: TrainingSize) -> Iterator[tuple[Inputs, Tensor]]:
    while True:
        size.begin(0)
        for batch in loader:
            size.see(batch)
            yield batch
        size.end()


def _start(model: Model, start: Mapping[str, Tensor] | None, batch: tuple[Inputs, Tensor]) -> dict[str, Tensor]:
    """Where the walk begins; refuses sites that it cannot walk on."""
    with alone(), torch.no_grad():
        trace = poutine.trace(model).get_trace(*batch)
    nodes = latent_nodes(trace.nodes)
    for name, node in nodes.items():
        distribution: Any = node["fn"]
        support = distribution.support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        if support is not constraints.real:
            raise ValueError(
                f"sghmc: the latent site {name!r} is not a real number without bounds ({distribution.support}); fix "
                "it, or use NUTS"
            )
    held = start if start is not None else getattr(model, "values", dict)()
    values: dict[str, Any] = {name: held.get(name, node["value"]) for name, node in nodes.items()}
    return {name: value.detach().clone() for name, value in values.items()}


def _gradient(model: Model, w: Mapping[str, Tensor], x: Inputs, y: Tensor) -> dict[str, Tensor]:
    leaves = {site: value.detach().requires_grad_() for site, value in w.items()}
    with alone(), torch.enable_grad():
        traced = poutine.trace(poutine.condition(model, data=leaves)).get_trace(x, y)
        joint = torch.as_tensor(traced.log_prob_sum())
        gradients = torch.autograd.grad(-joint, list(leaves.values()))
    if not torch.isfinite(joint):
        raise FloatingPointError("sghmc: the log joint density is not finite; take a smaller step")
    return dict(zip(leaves, gradients, strict=True))


def _check(
    epochs: int, step: float, cycles: int, draws: int, friction: float, explore: float, temperature: float
) -> None:
    for name, value in {"epochs": epochs, "cycles": cycles, "draws": draws}.items():
        if value < 1:
            raise ValueError(f"sghmc: {name} must be at least 1, not {value}")
    if not step > 0 or not 0 < friction <= 1 or not 0 <= explore < 1 or not temperature >= 0:
        raise ValueError(
            f"sghmc: step > 0, friction in (0, 1], explore in [0, 1) and temperature >= 0 are needed, not {step}, "
            f"{friction}, {explore}, {temperature}"
        )
