"""Chains of draws, one draw at a time, from whatever holds a posterior."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor, nn

from bayesnn.arviz.call import Call
from bayesnn.arviz.nodes import total, trace_of
from bayesnn.predict.ownership import check_model
from bayesnn.sites import Node, base_of, is_auxiliary, latent_nodes, log_density, without_plates
from bayesnn.tempering import noted, of_model, of_sampler

FROM_GUIDE = 1000
"""Draws from a guide where the caller does not say how many."""

Draw = tuple[dict[str, Tensor], float | None]
"""{site: value} and log q of it in nats (None where the posterior has no density)."""


@dataclass(frozen=True, eq=False)
class Chain:
    """One run, guide or member.

    Attributes:
        length: how many draws.
        draws: makes the iterator over them.
        method: what the posterior is, in a word.
        diverging: [draw], whether the trajectory diverged; None where there is none.
        acceptance: the mean acceptance rate of MCMC; None where there is none.
        tempering: {"kl_weight": of the loss of ours that trained a guide, else what the model
            states; "temperature": of a sampler}, as far as they are known.
    """

    length: int
    draws: Callable[[], Iterator[Draw]]
    method: str
    diverging: np.ndarray | None = None
    acceptance: float | None = None
    tempering: Mapping[str, float] = field(default_factory=dict)


def chains_of(posterior: Any, call: Call, draws: int | None, grouped: bool) -> list[Chain]:
    """All chains of a posterior, of equal length.

    Raises:
        TypeError: nothing that holds a posterior.
        ValueError: fewer than one draw, chains of different length, draws of other sites or shapes
            than the model's.
    """
    if draws is not None and draws < 1:
        raise ValueError(f"to_arviz: at least one draw is needed, not {draws}")
    if _is_list(posterior):
        if not len(posterior):
            raise ValueError("to_arviz: the list of guides or dicts is empty")
        for member in posterior:
            check_model(call.model, member, "to_arviz")
        chains = [chain for member in posterior for chain in chains_of(member, call, draws, grouped)]
    elif hasattr(posterior, "get_samples"):
        chains = _of_mcmc(posterior, call, draws)
    elif isinstance(posterior, Mapping):
        chains = _of_dict(posterior if grouped else _one_chain(posterior), call, draws, "draws")
        chains = [replace(chain, tempering=noted(posterior)) for chain in chains]
    elif callable(posterior):
        chains = [_of_guide(posterior, call, draws)]
    else:
        raise TypeError(
            f"to_arviz: a guide, an MCMC run, a dict of draws or a list of those is needed, not "
            f"{type(posterior).__name__}"
        )
    lengths = sorted({chain.length for chain in chains})
    if len(lengths) > 1:
        raise ValueError(f"to_arviz: the chains have different numbers of draws, {lengths}; give draws={lengths[0]}")
    return chains


def _is_list(posterior: Any) -> bool:
    """A list of posteriors. Pyro's `AutoGuideList` is a `ModuleList` too, but
    one guide with parts.
    """
    return isinstance(posterior, (list, tuple)) or type(posterior) is nn.ModuleList


def method_of(chains: Sequence[Chain], posterior: Any) -> str:
    """What the posterior is, in words."""
    if _is_list(posterior):
        return f"{len(posterior)} x {', '.join(dict.fromkeys(chain.method for chain in chains))}"
    return chains[0].method


def tempering_of(chains: Sequence[Chain]) -> dict[str, float | str]:
    """{"kl_weight", "temperature": a number}, where it is known; text where chains differ."""
    found: dict[str, float | str] = {}
    for name in dict.fromkeys(name for chain in chains for name in chain.tempering):
        first, *others = dict.fromkeys(chain.tempering.get(name, "unknown") for chain in chains)
        found[name] = ", ".join(map(str, [first, *others])) if others else first
    return found


def acceptance_of(chains: Sequence[Chain]) -> dict[str, str]:
    """{"acceptance_rate": the mean of each chain after warm-up}, where there is one."""
    rates = [f"{chain.acceptance:.6g}" for chain in chains if chain.acceptance is not None]
    return {"acceptance_rate": ", ".join(rates)} if rates else {}


def _of_mcmc(mcmc: Any, call: Call, draws: int | None) -> list[Chain]:
    held = mcmc.get_samples(group_by_chain=True)
    if not held:
        raise ValueError("to_arviz: this MCMC has not run; call mcmc.run(...) first")
    chains = _of_dict(held, call, draws, type(mcmc.kernel).__name__)
    chains = [replace(chain, tempering=of_sampler(call.model)) for chain in chains]
    length = next(iter(held.values())).shape[1]
    if length < 4:  # Pyro computes R-hat along with what is needed here, and refuses so few
        return chains
    diagnostics = mcmc.diagnostics()
    rates = diagnostics.get("acceptance rate", {}).values()
    chains = [replace(one, acceptance=rate) for one, rate in zip(chains, rates, strict=True)] if rates else chains
    found = diagnostics.get("divergences")
    if found is None:
        return chains
    marks = np.zeros((len(chains), length), dtype=bool)
    for row, where in zip(marks, found.values(), strict=True):
        row[where] = True
    marks = marks[:, _chosen(length, draws)]
    return [replace(one, diverging=row) for one, row in zip(chains, marks, strict=True)]


def _one_chain(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.unsqueeze(0) for name, value in held.items()}


def _of_dict(held: Mapping[str, Tensor], call: Call, draws: int | None, method: str) -> list[Chain]:
    """Chains from {site: [chain, draw, *event]}."""
    # Predictive hands back observed and deterministic sites too; they follow from the latent ones.
    known = {name: value for name, value in held.items() if name not in call.observed | call.deterministic}
    _check_names(known, call, "the dict of draws")
    leading = {name: tuple(value.shape[:2]) for name, value in known.items()}
    if len(set(leading.values())) > 1 or not all(len(shape) == 2 and all(shape) for shape in leading.values()):
        raise ValueError(
            f"to_arviz: every site needs the same number of draws as its first axis (with group_by_chain=True: of "
            f"chains and draws as its first two); [chain, draw] are {leading}"
        )
    count, length = next(iter(leading.values()))
    chosen = _chosen(length, draws)

    def of_chain(c: int) -> Iterator[Draw]:
        for s in chosen:
            yield {name: _fitting(name, value[c, s].detach(), call) for name, value in known.items()}, None

    return [Chain(len(chosen), lambda c=c: of_chain(c), method) for c in range(count)]  # type: ignore[misc]


def _of_guide(guide: Callable[..., Any], call: Call, draws: int | None) -> Chain:
    first, log_q = _guided(guide, call)
    _check_names(first, call, f"the guide {_name(guide)}")
    length = draws if draws is not None else FROM_GUIDE if log_q is not None else 1

    def drawn() -> Iterator[Draw]:
        for _ in range(length):
            values, log_q = _guided(guide, call)
            yield {name: _fitting(name, value, call) for name, value in values.items()}, log_q

    # Pyro's own ELBOs leave no note, and have the weight of the model's density.
    return Chain(length, drawn, _name(guide), tempering=noted(guide) or of_model(call.model))


def _guided(guide: Callable[..., Any], call: Call) -> Draw:
    """One draw. Sites with one value for each example come part by part, given
    the global sites of the same draw.
    """
    nodes = trace_of(guide, call.parts[0], call.keywords)
    values = {name: node["value"] for name, node in latent_nodes(nodes).items() if not is_auxiliary(node)}
    if all(_is_point(node) for node in nodes.values()):
        return values, None
    log_q = sum(total(node, log_density(node)) for name, node in nodes.items() if name not in call.local)
    if call.local:
        known = {name: value for name, value in values.items() if name not in call.local}
        given = poutine.condition(guide, data=known)
        parts = [nodes, *(trace_of(given, part, call.keywords) for part in call.parts[1:])]
        for name in call.local & nodes.keys():
            values[name] = torch.cat([part[name]["value"] for part in parts])
            log_q += sum(call.share(i) * total(part[name], log_density(part[name])) for i, part in enumerate(parts))
    return values, log_q


def _is_point(node: Node) -> bool:
    """A site that is always the same value, as in AutoDelta."""
    return isinstance(base_of(node["fn"]), Delta)


def _check_names(values: Mapping[str, Tensor], call: Call, owner: str) -> None:
    have = ", ".join(values) or "none"
    for name in call.latent:
        if name not in values:
            raise ValueError(
                f"to_arviz: {owner} has no draws of {name!r}, which is random in the model; it has {have}. Are these "
                "draws of another model?"
            )
    for name in values:
        if name in call.observed:
            raise ValueError(
                f"to_arviz: {owner} has the site {name!r}, which the model observes: it was made without the targets; "
                "make it with a call of the model that has them, (x, y)"
            )
        if name not in call.latent:
            raise ValueError(
                f"to_arviz: {owner} has the site {name!r}, which is not in the model, whose sites are "
                f"{', '.join(call.latent)}. Are these draws of another model?"
            )


def _fitting(name: str, value: Tensor, call: Call) -> Tensor:
    """A draw in the shape that the model gives the site, without axes of size 1 that `Predictive`
    leaves for plates.
    """
    site = call.latent[name]
    shape = site.shape if name not in call.local else value.shape[:1] + site.shape[1:]
    fitting = without_plates(value, shape)
    if fitting is None:
        raise ValueError(
            f"to_arviz: a draw of {name!r} has shape {tuple(value.shape)}, but the model's site has {tuple(shape)}; "
            "are these draws of another model, or do they have an axis for chains (group_by_chain=True)?"
        )
    return fitting


def _chosen(length: int, draws: int | None) -> list[int]:
    """All of them, or so many evenly spaced ones."""
    count = length if draws is None else min(draws, length)
    chosen: list[int] = torch.linspace(0, length - 1, count).floor().long().tolist()
    return chosen


def _name(guide: Any) -> str:
    return guide.__name__ if hasattr(guide, "__name__") else type(guide).__name__
