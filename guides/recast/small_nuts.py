"""The No-U-Turn sampler for a handful of numbers."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.ops.dual_averaging import DualAveraging
from torch import Tensor
from typing_extensions import override

DEEPEST = 10
"""Doublings of a trajectory, at most."""
DIVERGING = 1000.0
"""Nats of energy that a trajectory may gain."""
FIRST = 0.5
"""The first step, which warming up adapts."""


class SmallNUTS(MCMCKernel):
    """NUTS with multinomial trajectories, for Pyro's `MCMC`, where a gradient costs less than a
    tree of small tensors.

    Trajectories run in coordinates z, u = centre + root z, in which the posterior is close to a
    standard normal; the mass matrix is the identity there and is not adapted, the step size is.

    Args:
        slopes: u [number] -> the log density in nats and its gradient.
        centre: [number].
        root: of the covariance, [number, number].
        values: u -> {site: value}.
        model: that the sites are of.
        target: mean acceptance probability that the step size is adapted to.

    References: Hoffman, Gelman (2014), The No-U-Turn Sampler; Betancourt (2017), A conceptual
    introduction to Hamiltonian Monte Carlo.

    >>> from pyro.infer import MCMC
    >>> slopes = lambda u: (-float(u @ u) / 2, -u)
    >>> kernel = SmallNUTS(slopes, torch.zeros(2), torch.eye(2), lambda u: {"u": u})
    >>> run = MCMC(kernel, num_samples=100, warmup_steps=50, disable_progbar=True)
    >>> run.run()
    >>> run.get_samples()["u"].shape
    torch.Size([100, 2])
    """

    transforms: Mapping[str, Any] = {}

    def __init__(
        self,
        slopes: Callable[[np.ndarray], tuple[float, np.ndarray]],
        centre: Tensor,
        root: Tensor,
        values: Callable[[Tensor], dict[str, Tensor]],
        *,
        model: Any = None,
        target: float = 0.8,
    ) -> None:
        self.slopes, self.values, self.model, self.target = slopes, values, model, target
        self.centre, self.root = centre.numpy(), root.numpy()

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Start a chain at a draw from N(centre, root root^T); its seed is
        drawn from torch's generator.
        """
        self._random = np.random.default_rng(int(torch.randint(2**62, ())))
        self._adaptation = DualAveraging(prox_center=math.log(10 * FIRST))
        self._warmup, self._t, self._step = warmup_steps, 0, FIRST
        self._accepted, self._leaps, self._divergences = 0.0, 0, list[int]()
        self._now = self._at(self._random.standard_normal(len(self.centre)))

    @property
    def initial_params(self) -> dict[str, Tensor]:
        """{site: value} at the present state of the chain."""
        return self.values(torch.from_numpy(self.centre + self.root @ self._now.z))

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        raise NotImplementedError("SmallNUTS starts at a draw of its own")

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The next state of the chain, from the last one, `params`."""
        # far out densities overflow, and that trajectory is rejected
        with np.errstate(all="ignore"):
            trajectory = self._trajectory()
        self._now, rate = trajectory.chosen, trajectory.accepted / trajectory.leaps
        self._t, self._leaps = self._t + 1, self._leaps + trajectory.leaps
        done = self._t - self._warmup
        if done <= 0:
            self._adaptation.step(self.target - rate)
            self._step = math.exp(self._adaptation.get_state()[done == 0])
        elif trajectory.diverged:
            self._divergences.append(done - 1)
        self._accepted += (rate - self._accepted) / (done if done > 0 else self._t)
        return self.initial_params

    @override
    def logging(self) -> OrderedDict[str, str]:
        return OrderedDict([("step size", f"{self._step:.2e}"), ("acc. prob", f"{self._accepted:.3f}")])

    def diagnostics(self) -> dict[str, Any]:
        """Draws whose trajectories diverged, mean acceptance probability, step size, leaps in all
        with warming up.
        """
        return {
            "divergences": self._divergences,
            "acceptance rate": self._accepted,
            "step size": self._step,
            "leaps": self._leaps,
        }

    def _at(self, z: np.ndarray) -> "_Point":
        value, slope = self.slopes(self.centre + self.root @ z)
        return _Point(z, value, slope @ self.root)

    def _trajectory(self) -> "_Tree":
        momentum = self._random.standard_normal(len(self.centre))
        energy = float(self._now.value - momentum @ momentum / 2)
        start = self._now, momentum
        tree = _Tree(start, start, self._now, 0.0, momentum, accepted=0.0, leaps=0, stop=False, diverged=False)
        for depth in range(DEEPEST):
            forward = self._random.random() < 0.5
            more = self._grown(tree.last if forward else tree.first, depth, self._step, energy, forward=forward)
            tree = self._joined(tree, more, tree.log_weight, forward=forward)
            if tree.stop:
                break
        return tree

    def _grown(
        self, edge: tuple["_Point", np.ndarray], depth: int, step: float, energy: float, *, forward: bool
    ) -> "_Tree":
        """2^depth leaps from an end of the trajectory, fewer where they turn or diverge."""
        if depth == 0:
            return self._leap(*edge, step if forward else -step, energy)
        tree = self._grown(edge, depth - 1, step, energy, forward=forward)
        if tree.stop:
            return tree
        more = self._grown(tree.last if forward else tree.first, depth - 1, step, energy, forward=forward)
        return self._joined(tree, more, float(np.logaddexp(tree.log_weight, more.log_weight)), forward=forward)

    def _leap(self, point: "_Point", momentum: np.ndarray, step: float, energy: float) -> "_Tree":
        half = momentum + step / 2 * point.slope
        point = self._at(point.z + step * half)
        momentum = half + step / 2 * point.slope
        gain = float(point.value - momentum @ momentum / 2 - energy)
        gain = gain if math.isfinite(gain) else -math.inf
        diverged, end = gain < -DIVERGING, (point, momentum)
        accepted = math.exp(min(gain, 0.0))
        return _Tree(end, end, point, gain, momentum, accepted, leaps=1, stop=diverged, diverged=diverged)

    def _joined(self, tree: "_Tree", more: "_Tree", log_weight: float, *, forward: bool) -> "_Tree":
        """A tree and its continuation, whose point is taken with probability exp(its log
        weight - log_weight).
        """
        taken = not more.stop and -self._random.standard_exponential() < more.log_weight - log_weight
        left, right = (tree, more) if forward else (more, tree)
        total = left.total + right.total
        stop = (
            more.stop
            or _turns(total, left.first[1], right.last[1])
            or _turns(left.total + right.first[1], left.first[1], right.first[1])
            or _turns(right.total + left.last[1], left.last[1], right.last[1])
        )
        return _Tree(
            left.first,
            right.last,
            more.chosen if taken else tree.chosen,
            float(np.logaddexp(tree.log_weight, more.log_weight)),
            total,
            tree.accepted + more.accepted,
            tree.leaps + more.leaps,
            stop,
            more.diverged,
        )


def _turns(total: np.ndarray, first: np.ndarray, last: np.ndarray) -> bool:
    """Whether the ends of a trajectory with this sum of momenta come closer."""
    return bool(total @ first <= 0 or total @ last <= 0)


class _Point(NamedTuple):
    z: np.ndarray
    value: float
    slope: np.ndarray


class _Tree(NamedTuple):
    """A piece of a trajectory: its ends with their momenta, a point of it drawn
    by weight, and sums over it.
    """

    first: tuple[_Point, np.ndarray]
    last: tuple[_Point, np.ndarray]
    chosen: _Point
    log_weight: float
    total: np.ndarray
    accepted: float
    leaps: int
    stop: bool
    diverged: bool
