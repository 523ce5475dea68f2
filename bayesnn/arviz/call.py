"""One call of a Pyro model with all data, and the densities of all its sites at given values of
the latent ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from bayesnn.arviz.nodes import Site, event, site_of, total, trace_of
from bayesnn.functional import Inputs, batch_size, chunks
from bayesnn.models import is_model
from bayesnn.sites import (
    Node,
    is_data,
    is_deterministic,
    is_factor,
    latent_nodes,
    log_density,
    masked,
    seen,
)


@dataclass(eq=False)
class Evaluation:
    """A model at one value of its latent sites. Log densities in nats; those of data are pointwise
    and never scaled.
    """

    log_joint: float = 0.0
    log_prior: dict[str, float] = field(default_factory=dict)
    log_likelihood: dict[str, Tensor] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)  # which of its entries no mask hides
    observed: dict[str, Tensor] = field(default_factory=dict)
    replicated: dict[str, Tensor] = field(default_factory=dict)
    deterministic: dict[str, Tensor] = field(default_factory=dict)


class Call:
    """A model together with the arguments of one call.

    A model of `bayesnn.models` called as (x, y) is called for at most `chunk` examples at a time;
    the results are those of one call.

    Attributes:
        parts: the arguments of those calls.
        latent, deterministic, observed, factors: {site: Site}, where factors are those of
            examples, in the plates of an observed site; a site with one value for each example has
            the shape of the first part.
        local: names of the latent sites with one value for each example.

    Raises:
        ValueError: a call that observes nothing; a subsampled plate; a model size below the number
            of examples.
    """

    def __init__(self, model: Any, args: tuple[Any, ...], keywords: Mapping[str, Any], chunk: int) -> None:
        if chunk < 1:
            raise ValueError(f"to_arviz: chunk is the number of examples in one pass, at least 1, not {chunk}")
        self.model, self.keywords = model, dict(keywords)
        self.local: frozenset[str] = model.local if is_model(model) else frozenset()
        self.parts = _parts(model, args, chunk) if is_model(model) and not keywords else [args]
        nodes = trace_of(model, self.parts[0], self.keywords)
        self.latent = {name: site_of(node) for name, node in latent_nodes(nodes).items()}
        self.deterministic = {name: site_of(node) for name, node in nodes.items() if is_deterministic(node)}
        self.observed = {name: site_of(node) for name, node in nodes.items() if is_data(node)}
        plates = [_plates(node) for node in nodes.values() if is_data(node)]
        of_factors = {name: node for name, node in nodes.items() if is_factor(node)}
        self.factors = {
            name: Site(log_density(node).shape, site_of(node).dims[:-1])
            for name, node in of_factors.items()
            if (own := _plates(node)) and own in plates
        }
        self.only_in_lp = [name for name in of_factors if name not in self.factors]
        self._seen: dict[str, Tensor] = {}
        if not self.observed:
            raise ValueError(
                "to_arviz: the model observes nothing in this call; give it the targets too, to_arviz(posterior, x, y)"
            )

    @property
    def elements(self) -> int:
        """Numbers in the observed data."""
        first = sum(site.shape.numel() for site in self.observed.values())
        if len(self.parts) == 1:
            return first
        return first // batch_size(self.parts[0][0]) * sum(batch_size(part[0]) for part in self.parts)

    def share(self, part: int) -> float:
        """What a part's scaled density counts in one call with all data, where examples have the
        weight size / all.
        """
        if len(self.parts) == 1 or self.model.size is None:
            return 1.0
        return batch_size(self.parts[part][0]) / sum(batch_size(each[0]) for each in self.parts)

    def prior(self) -> dict[str, Tensor]:
        """{site: value} of the global sites, from the prior."""
        nodes = trace_of(poutine.uncondition(self.model), self.parts[0], self.keywords)
        return {name: nodes[name]["value"] for name in self.latent if name not in self.local}

    def at(self, values: Mapping[str, Tensor], *, replicate: bool = False) -> Evaluation:
        """Densities, deterministic sites and, on request, new data, at these
        values of the latent sites.
        """
        result, start, pieces = Evaluation(), 0, []
        for i, part in enumerate(self.parts):
            stop = start + (batch_size(part[0]) if self.local else 0)
            given = {name: values[name] for name in self.latent if name in values}
            given.update({name: given[name][start:stop] for name in self.local & given.keys()})
            start = stop
            nodes = trace_of(poutine.condition(self.model, data=given), part, self.keywords)
            pieces.append(self._piece(nodes, result, i))
            if replicate:
                pieces[-1].replicated = self._replicate(nodes, given, part)
        result.log_likelihood = _joined(piece.log_likelihood for piece in pieces)
        result.seen = _joined(piece.seen for piece in pieces)
        for name, entries in result.seen.items():
            if not torch.equal(self._seen.setdefault(name, entries), entries):
                raise ValueError(
                    f"to_arviz: the mask of {name!r} differs between draws, which are then of other data; mask by data "
                    "alone"
                )
        result.observed = _joined(piece.observed for piece in pieces)
        result.replicated = _joined(piece.replicated for piece in pieces)
        # What belongs to no example is the same in every part.
        per_example = {name for name, site in self.deterministic.items() if any(site.dims)}
        result.deterministic = _joined(
            {name: value for name, value in piece.deterministic.items() if name in per_example or piece is pieces[0]}
            for piece in pieces
        )
        return result

    def _piece(self, nodes: Mapping[str, Node], result: Evaluation, part: int) -> Evaluation:
        """Add the densities of one part to the result, and return its arrays."""
        piece = Evaluation()
        for name, node in nodes.items():
            if name in self.deterministic:
                piece.deterministic[name] = node["value"]
                continue
            per_example = bool(node["cond_indep_stack"]) or name in self.local
            if part and not per_example:
                continue  # counted with the first part
            density = log_density(node)
            result.log_joint += total(node, density) * (self.share(part) if per_example else 1.0)
            if name in self.latent:
                result.log_prior[name] = result.log_prior.get(name, 0.0) + float(density.double().sum())
            elif name in self.factors or name in self.observed:
                piece.log_likelihood[name] = masked(density, node)
                piece.seen[name] = seen(node, density)
            if name in self.observed:
                piece.observed[name] = event(node, node["value"])
        return piece

    def _replicate(
        self, nodes: Mapping[str, Node], given: dict[str, Tensor], part: tuple[Any, ...]
    ) -> dict[str, Tensor]:
        """New data. Several observed sites may depend on each other: one more call of the model
        draws them together.
        """
        if len(self.observed) > 1:
            free = poutine.condition(poutine.uncondition(self.model), data=given)
            nodes = trace_of(free, part, self.keywords)
            return {name: event(nodes[name], nodes[name]["value"]) for name in self.observed}
        return {name: event(nodes[name], nodes[name]["fn"].sample()) for name in self.observed}


def _plates(node: Node) -> set[str]:
    return {frame.name for frame in node["cond_indep_stack"] if frame.vectorized}


def _parts(model: Any, args: tuple[Any, ...], chunk: int) -> list[tuple[Any, ...]]:
    if len(args) != 2 or not isinstance(args[1], Tensor) or (examples := batch_size(args[0])) <= chunk:
        return [args]
    if model.size is not None and model.size < examples:
        raise ValueError(
            f"to_arviz: size = {model.size} examples of training data were announced, but x has {examples}"
        )
    x, y = args
    if len(y) != examples:
        raise ValueError(f"to_arviz: x has {examples} examples, but y has {len(y)}")
    pairs: Inputs = (x, y)
    return [tuple(part) for part in chunks(pairs, chunk)]


def _joined(pieces: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """{name: the pieces' values along the first axis}."""
    found: dict[str, list[Tensor]] = {}
    for piece in pieces:
        for name, value in piece.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(values) if len(values) > 1 else values[0] for name, values in found.items()}
