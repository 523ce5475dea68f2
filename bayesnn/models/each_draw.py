"""Priors and likelihoods that sample sites of their own, called for one draw at
a time where Pyro vectorises.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Size, Tensor

from bayesnn.scales import ALIGNED
from bayesnn.sites import is_deterministic

REPAIR = "leave vectorize_particles= and parallel= off"
NONE = Size()


def for_each_draw(make: Callable[[int | None], Any], depth: int, lead: Size = NONE) -> Any:
    """The distribution that `make` makes, where its own latent sites have axes of particles or
    draws.

    A function that multiplies a latent scale by a latent vector is right for one draw, and wrong
    where both have axes of draws on their left: a number and a vector put them in different
    places. It is therefore called for each draw, with the values of that draw, and its
    distributions are joined. Sites are sampled once, for all draws. Sites of this package's own
    priors and likelihoods (`normal(HalfCauchy(1.0))`) keep their axes in place and need none of
    this: one call serves all draws.

    Args:
        make: index of a draw, or None for all at once -> distribution.
        depth: batch axes of the plates around, of which the last is that of the data.
        lead: axes of draws that the arguments of `make` have, [depth].

    Raises:
        TypeError: a distribution that depends on the draw and cannot be joined.
        ValueError: an observed site; other sites in one draw than in another.
    """
    if not depth:
        return make(None)
    latent = _Latent(depth)
    try:
        with latent:
            result = make(None)
    except _Unknown:
        latent.passing = False
    else:
        _announce(latent.deterministic[0])
        return result
    plates: dict[str, Any] = {}
    while True:
        lead = torch.broadcast_shapes(lead, *(site.lead for site in latent.known.values()))
        results = latent.each(make, lead)
        first = results[0]
        if len({getattr(result, "name", "") for result in results}) > 1:
            raise ValueError(f"which sites a prior or likelihood samples depends on the draw; {REPAIR}")
        if not isinstance(first, _Unknown):
            _announce(*latent.deterministic, lead=lead)
            return joined(results, lead)
        distribution = joined([result.distribution for result in results], lead)
        with ExitStack() as stack:
            for frame in first.frames:
                if frame.name not in plates:
                    plates[frame.name] = pyro.plate(frame.name, frame.size, dim=frame.dim)
                stack.enter_context(plates[frame.name])
            value = pyro.sample(first.name, distribution, infer=first.infer)
        latent.note(first.name, value, distribution.event_dim, first.frames)


def joined(each: Sequence[Any], lead: Size) -> Any:
    """One distribution of batch shape [*lead, *batch] from one for each draw; `batch` takes the
    last places of `lead`.

    Raises:
        TypeError: a distribution that is not its parameters.
        ValueError: distributions of different kinds or shapes, or inner plates in the place of
            those of draws.
    """
    first = each[0]
    if not lead:
        return first
    if len({(type(one), one.batch_shape, one.event_shape) for one in each}) > 1:
        raise ValueError(f"a prior or likelihood has distributions of other kinds or shapes in other draws; {REPAIR}")
    return _joined(each, _outer(lead, len(first.batch_shape)))


def _outer(lead: Size, inner: int) -> Size:
    """The axes of draws that stay on the left of `inner` others."""
    kept = max(len(lead) - inner, 0)
    if lead[kept:].numel() > 1:
        raise ValueError(
            f"a plate inside a prior or likelihood lies where that of particles or draws does, at dim {-inner}; give "
            f"the ELBO or Predictive max_plate_nesting={inner} or more"
        )
    return lead[:kept]


def _joined(each: Sequence[Any], outer: Size) -> Any:
    first = each[0]
    if isinstance(first, torch.distributions.Independent):
        inner = _joined([one.base_dist for one in each], outer)
        return inner.to_event(first.reinterpreted_batch_ndims)
    # logits or probs: as they were given
    own = [name for name in first.arg_constraints if name in vars(first)]
    try:
        values = {name: [getattr(one, name) for one in each] for name in own or first.arg_constraints}
        made = type(first)(**{name: _stack(value, outer) for name, value in values.items()}, validate_args=False)
        if made.batch_shape != outer + first.batch_shape or made.event_shape != first.event_shape:
            raise TypeError
    except (TypeError, AttributeError):
        raise TypeError(
            f"the parameters of {type(first).__name__} do not make it up, so that its draws cannot be joined under "
            f"vectorised particles; use a distribution of its parameters alone, or {REPAIR}"
        ) from None
    return made


def _stack(values: Sequence[Tensor], outer: Size) -> Tensor:
    return torch.stack(list(values)).reshape(outer + values[0].shape)


def _announce(*each: Mapping[str, tuple[Tensor, int]], lead: Size = NONE) -> None:
    """Deterministic sites of the function, for all draws."""
    for name, (value, event_dim) in each[0].items():
        values = [one[name][0] for one in each]
        whole = _stack(values, _outer(lead, value.dim() - event_dim)) if lead else value
        pyro.deterministic(name, whole, event_dim=event_dim)


class _Site:
    """The value of a latent site: [*lead, *own], where inner plates of the
    function count as its own.
    """

    def __init__(self, value: Tensor, own: int, inner: int, depth: int) -> None:
        outer = value.shape[: value.dim() - own]
        # Predictive(parallel=True) leaves axes of size 1 out, on the right.
        self.outer = outer + (1,) * (depth - inner - len(outer))
        self.lead = Size(self.outer + (1,) * min(inner, depth))
        self.value = value.reshape(self.outer + value.shape[value.dim() - own :])

    def at(self, draw: int, lead: Size) -> Tensor:
        """Its value at one draw of `lead`."""
        own = self.value.shape[len(self.outer) :]
        return self.value.expand(lead[: len(self.outer)] + own).reshape((-1, *own))[draw]


class _Unknown(Exception):
    """The first site whose value is not known yet."""

    def __init__(self, msg: dict[str, Any]) -> None:
        super().__init__(msg["name"])
        self.name: str = msg["name"]
        self.distribution, self.frames, self.infer = msg["fn"], msg["cond_indep_stack"], msg["infer"]


class _Latent(Messenger):
    """Gives known sites their value at one draw, hides them, and stops at the first unknown one.

    While `passing`, there is no single draw: aligned sites are sampled as usual and noted.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth, self.passing = depth, True
        self.known: dict[str, _Site] = {}
        self.draw, self.lead = 0, Size()
        self.deterministic: list[dict[str, tuple[Tensor, int]]] = [{}]

    def each(self, make: Callable[[int | None], Any], lead: Size) -> list[Any]:
        """What `make` makes at each draw of `lead`: a distribution, or the
        first site that it needs first.
        """
        self.lead, self.deterministic, results = lead, [], []
        for self.draw in range(lead.numel()):
            self.deterministic.append({})
            try:
                with self:
                    results.append(make(self.draw))
            except _Unknown as unknown:
                results.append(unknown)
        return results

    def note(self, name: str, value: Tensor, event_dim: int, frames: Sequence[Any]) -> None:
        """The value of a site for all draws."""
        inner = max((-frame.dim for frame in frames if frame.vectorized), default=0)
        self.known[name] = _Site(value, inner + event_dim, inner, self.depth)

    def _aligned(self, msg: dict[str, Any]) -> bool:
        return self.passing and bool((msg["infer"] or {}).get(ALIGNED))

    def _pyro_sample(self, msg: Any) -> None:
        if self._aligned(msg):
            return
        if site_is_subsample(msg):
            msg["stop"] = True
        elif is_deterministic(msg):
            self.deterministic[-1][msg["name"]] = msg["value"], msg["fn"].event_dim
            msg["stop"] = True
        elif msg["is_observed"]:
            raise ValueError(
                f"{msg['name']!r}: a prior or likelihood that observes a site works for one draw; {REPAIR}"
            )
        elif self.passing or msg["name"] not in self.known:
            raise _Unknown(msg)
        else:
            msg["value"] = self.known[msg["name"]].at(self.draw, self.lead)
            msg["done"] = msg["stop"] = True

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if self._aligned(msg):
            self.note(msg["name"], msg["value"], msg["fn"].event_dim, ())
