"""Draws from a posterior: a guide, an MCMC run, or a dict of draws."""

from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, TypeAlias

import torch
from pyro import poutine
from torch import Tensor

from bayesnn.functional import alone
from bayesnn.models import Draws, Guide, Model, is_model
from bayesnn.predict.ownership import model_for, own_model
from bayesnn.sites import is_auxiliary, latent_nodes, without_plates
from bayesnn.tempering import noted, noted_draws

Posterior: TypeAlias = "Guide | Callable[..., Any] | Draws"
"""A guide (any Pyro guide), an `MCMC` that has run, or draws {site: [draw, *event]}."""


def draw(posterior: Posterior, draws: int = 100, *args: Any, model: Model | None = None) -> dict[str, Tensor]:
    """{site: [draw, *event]}: draws of the global sites, without gradients.

    What a posterior says of its tempering goes with them: the weight of the KL divergence in the
    loss of ours that trained a guide, the temperature of `sghmc`'s draws.

    Args:
        posterior: a guide; an `MCMC` that has run; or a dict of draws, as `Predictive` and
            `MCMC.get_samples` return.
        draws: how many. A dict or MCMC run that holds more gives so many evenly spaced ones, and
            all it has where it holds fewer.
        *args: what the guide is called with; our own guides of global sites need nothing.
        model: the posterior's own by default. Its blocks' shapes tell which axes of size 1 in a
            dict are leftovers of plates, and are dropped.

    Raises:
        TypeError: a model in the place of the posterior, of the number of draws or of an argument;
            no posterior.
        ValueError: no draws; draws of another model; a model other than the posterior's own.

    >>> import torch
    >>> draw({"w": torch.arange(10.0)}, 3)
    {'w': tensor([0., 4., 9.])}
    """
    each = list(draw_each(posterior, draws, *args, model=model))
    drawn = {name: torch.stack([one[name] for one in each]) for name in each[0]}
    return noted_draws(drawn, noted(posterior))


def draw_each(
    posterior: Posterior, draws: int = 100, *args: Any, model: Model | None = None
) -> Iterator[dict[str, Tensor]]:
    """Draws one at a time, {site: [*event]}, the same as those of `draw`.

    They need the memory of one draw if the posterior is a guide.
    """
    number: object = draws
    if not isinstance(number, Integral):
        raise TypeError(
            f"draw: draws is how many, not a {type(draws).__name__}; the posterior comes first, draws second, and the "
            "model is a keyword, draw(posterior, 100, model=model)"
        )
    if draws < 1:
        raise ValueError(f"draw: at least one draw is needed, not {draws}")
    knows = model is not None or own_model(posterior) is not None
    # others need none here; a misplaced one is refused
    if knows or any(map(is_model, (posterior, *args[:1]))):
        own = model_for(posterior, model, "draw", *args)
        model = own if is_model(own) else None  # of a larger Pyro model no shapes are needed
    held = posterior.get_samples() if hasattr(posterior, "get_samples") else posterior
    if isinstance(held, Mapping):
        yield from _from_dict(held, draws, model)
    elif callable(held):
        for _ in range(draws):
            yield _from_guide(held, args)
    else:
        raise TypeError(f"draw: a guide, an MCMC run or a dict of draws is needed, not {type(posterior).__name__}")


@torch.no_grad()
def _from_guide(guide: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Tensor]:
    # Pyro's stack of handlers is that of all threads
    with alone(), poutine.block(), poutine.trace() as traced:
        guide(*args)
    nodes: Mapping[str, Any] = traced.trace.nodes
    return {name: node["value"].detach() for name, node in latent_nodes(nodes).items() if not is_auxiliary(node)}


def _from_dict(held: Draws, draws: int, model: Model | None) -> Iterator[dict[str, Tensor]]:
    if not held:
        raise ValueError("draw: the dict of draws is empty")
    counts = {name: len(value) if value.dim() else 0 for name, value in held.items()}
    available = min(counts.values())
    if available < 1 or len(set(counts.values())) > 1:
        raise ValueError(f"draw: every site needs the same number of draws as its first axis; they have {counts}")
    shapes = model.sites if model is not None else {}
    count = min(draws, available)
    for i in (j * (available - 1) // max(count - 1, 1) for j in range(count)):
        yield {name: _event(name, value[i].detach(), shapes.get(name)) for name, value in held.items()}


def _event(name: str, value: Tensor, shape: torch.Size | None) -> Tensor:
    """The value of one draw without axes of size 1 that `Predictive` leaves for plates."""
    if shape is None:
        return value
    fitting = without_plates(value, shape)
    if fitting is None:
        raise ValueError(
            f"draw: a draw of {name!r} has shape {tuple(value.shape)}, but the model's block has {tuple(shape)}; "
            "are these draws of another model?"
        )
    return fitting
