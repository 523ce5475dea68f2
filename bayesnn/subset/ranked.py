"""Subsets of single weights: the k with the largest score over a whole network, or k at random."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from bayesnn.curvature import JacobianRows, ggn_diagonal
from bayesnn.functional import Inputs, alone, check_evaluation_mode, parameters, semidefinite_root
from bayesnn.functional.call import to_device
from bayesnn.subset.core import Subset, shapes


def largest_magnitude(net: nn.Module, k: int, *, within: Subset | None = None) -> Subset:
    """The k weights with the largest |w|, over the whole network or `within` a subset."""
    return _top(net, {name: value.abs().flatten() for name, value in parameters(net).items()}, k, within)


def random(net: nn.Module, k: int, *, generator: torch.Generator | None = None, within: Subset | None = None) -> Subset:
    """k weights uniformly at random, over the whole network or `within` a subset."""
    scores = {name: torch.rand(shape.numel(), generator=generator) for name, shape in shapes(net).items()}
    return _top(net, scores, k, within)


def largest_variance(
    net: nn.Module,
    loader: Iterable[tuple[Inputs, Tensor]],
    likelihood: Callable[[Tensor], object],
    k: int,
    *,
    within: Subset | None = None,
) -> Subset:
    """The k weights with the largest marginal posterior variance under a diagonal Laplace
    approximation.

    v_l = 1 / (F_l + d) with F = diag(sum_i J_i^T L_i J_i) and a prior precision d shared by all
    weights, so the order of the v_l is that of -F_l whatever d is. For a diagonal posterior this
    subset is nearest to the whole in the 2-Wasserstein distance. Weights without Fisher
    information (F_l below machine precision times the mean: dead units) have the prior's variance
    and no effect on any output; they come last and are refused rather than chosen.

    Args:
        net: in evaluation mode.
        loader: batches (x, y); y is not used.
        likelihood: one of `bayesnn.likelihoods`, or any with a method
            `fisher(outputs) -> [batch, class, class]`.
        k: how many weights.
        within: choose among these only.

    Raises:
        ValueError: fewer than k weights have Fisher information; the likelihood has no `fisher`,
            or a latent site; an empty loader.

    Reference: Daxberger, Nalisnick, Allingham, Antoran, Hernández-Lobato (2021), Bayesian deep
    learning via subnetwork inference, section 4.
    """
    fisher = getattr(likelihood, "fisher", None)
    if fisher is None:
        raise ValueError(
            "largest_variance: the likelihood has no Fisher information of its outputs; give it a method "
            "fisher(outputs) -> [batch, class, class]"
        )
    check_evaluation_mode(net, "largest_variance")
    _check_within(net, within)
    chosen = {name: value for name, value in parameters(net).items() if within is None or name in within.index}
    device = next(iter(chosen.values())).device
    rows = JacobianRows(net, chosen, dict.fromkeys(chosen))

    def roots(outputs: Tensor, examples: slice) -> Tensor:
        with alone(), _NoSites():
            return semidefinite_root(fisher(outputs))

    total: Tensor | None = None
    for x, *_ in loader:
        part = ggn_diagonal(rows, to_device(x, device), roots)
        total = part if total is None else total.add_(part)
    if total is None:
        raise ValueError("largest_variance: the loader is empty")
    total = total.to(next(iter(chosen.values())).dtype)
    informed = total > torch.finfo(total.dtype).eps * total.mean()
    scores = torch.where(informed, -total, -torch.inf)
    sizes = [value.numel() for value in chosen.values()]
    return _top(net, dict(zip(chosen, scores.split(sizes), strict=True)), k, within)


def _top(net: nn.Module, scores: dict[str, Tensor], k: int, within: Subset | None) -> Subset:
    shape = shapes(net)
    _check_within(net, within)
    if within is not None:
        scores = {name: _masked(scores[name].cpu(), within.index[name]) for name in within.index}
    joined = torch.cat([score.cpu() for score in scores.values()])
    available = int((joined > -torch.inf).sum())
    if not 1 <= k <= available:
        raise ValueError(f"k = {k} weights asked for, but it must be between 1 and {available}, the eligible ones")
    best = torch.topk(joined, k).indices.sort().values
    index: dict[str, Tensor | None] = {}
    start = 0
    for name, score in scores.items():
        inside = best[(best >= start) & (best < start + len(score))] - start
        if len(inside):
            index[name] = inside
        start += len(score)
    return Subset(shape, index)


def _check_within(net: nn.Module, within: Subset | None) -> None:
    if within is not None and dict(within.shape) != shapes(net):
        raise ValueError("within: this subset belongs to another network")


class _NoSites(Messenger):
    """Refuses Pyro sites: a latent noise scale would be drawn anew for every batch, and the
    ranking be noise.
    """

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["value"] is None:
            raise ValueError(
                f"largest_variance: the likelihood has the latent site {msg['name']!r}; choose with a fixed or learned "
                "value in its place"
            )


def _masked(score: Tensor, chosen: Tensor | None) -> Tensor:
    if chosen is None:
        return score
    masked = torch.full_like(score, -torch.inf)
    masked[chosen.cpu()] = score[chosen.cpu()]
    return masked
