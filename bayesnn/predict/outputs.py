"""Draws times inputs to outputs."""

import logging
from collections.abc import Iterator
from functools import partial
from itertools import islice

import torch
from pyro import poutine
from torch import Tensor, nn

from bayesnn.functional import Inputs, check_evaluation_mode, chunks, map_draws, progress_bar
from bayesnn.models import Model
from bayesnn.models.inputs import check_inputs
from bayesnn.predict.draw import Posterior, draw_each
from bayesnn.predict.ownership import network_model_for
from bayesnn.predict.together import draws_together

log = logging.getLogger(__name__)


@torch.no_grad()
def predict(
    posterior: Posterior,
    x: Inputs,
    draws: int = 100,
    *,
    model: Model | None = None,
    chunk: int = 1000,
    vectorised: bool | None = None,
    progress: bool = True,
) -> Tensor:
    """f(x; w_s) for draws w_s of the posterior, [draw, batch, out], in the likelihood's natural
    units (logits, ...).

    Every draw is one function: all inputs see the same weights. One draw is held at a time and at
    most `chunk` inputs pass the network together, so memory is that of the answer and one pass;
    where draws are vectorised, as many pass together as fit into `predict.together.LIMIT` bytes.

    Args:
        posterior: a guide, an MCMC run or a dict of draws.
        x: inputs, on the network's device.
        draws: how many; see `draw`.
        model: the posterior's own by default, `model` of a guide. A posterior that does not know
            its model needs it: a dict of draws, a plain function, or one of a larger Pyro model,
            of which this is one network.
        chunk: inputs in one pass.
        vectorised: whether several draws go through one `vmap` call. None takes what is faster, by
            one rule: see `predict.together.draws_together`. Layers without a batching rule (LSTM)
            loop in any case. The path taken is logged.
        progress: a tqdm bar over the draws.

    Raises:
        ValueError: inputs that are not finite (it says where), a network in training mode, a
            posterior of another model (other sites, prior or likelihood, or a network with other
            weights where they are not random), a site that the posterior lacks.
        TypeError: a posterior that does not know its model, and none is given; a model in another
            place; draws without a guide where the model has sites with one value an example.

    >>> import torch
    >>> from torch import nn
    >>> from bayesnn import BNN, likelihoods, priors, subset
    >>> net = nn.Linear(3, 2)
    >>> model = BNN(net, subset.everything(net), priors.normal(), likelihoods.categorical)
    >>> held = {name: value.expand(5, *value.shape) for name, value in model.values().items()}
    >>> predict(held, torch.zeros(4, 3), model=model).softmax(-1).shape
    torch.Size([5, 4, 2])
    """
    model = network_model_for(posterior, model, "predict", x)
    outputs, _ = outputs_and_latents(
        posterior, x, draws, model=model, chunk=chunk, vectorised=vectorised, progress=progress
    )
    return outputs


@torch.no_grad()
def outputs_and_latents(
    posterior: Posterior,
    x: Inputs,
    draws: int,
    *,
    model: Model,
    chunk: int,
    vectorised: bool | None = None,
    progress: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`predict`, and the same draws of the model's remaining sites (scales), {site:
    [draw, *event]}.
    """
    _check(model, x, chunk)
    parts = list(chunks(x, chunk))
    each = draw_each(posterior, draws, parts[0], model=model)
    first = next(each)
    _check_sites(model, first)
    own = {name: first[name] for name in model.sites}
    # a member of an ensemble: a network each
    discrete = any(not value.is_floating_point() for value in own.values())
    looped = model.local or not own or discrete or vectorised is False
    group = 0 if looped else draws_together(model, own, parts[0], vectorised=vectorised)
    log.info("predict: %s", "one draw at a time" if not group else f"{group} draws at a time, under vmap")
    results, latents = [], []
    with progress_bar(desc="predict", unit="draw", show=progress, total=draws) as bar:
        for some in _groups(first, each, max(group, 1)):
            results.append(_outputs(model, posterior, some, parts, together=group > 0))
            latents += [{k: v for k, v in one.items() if k not in model.sites and k not in model.local} for one in some]
            bar.update(len(some))
    return torch.cat(results), {name: torch.stack([one[name] for one in latents]) for name in latents[0]}


def _check(model: Model, x: Inputs, chunk: int) -> None:
    if chunk < 1:
        raise ValueError(f"predict: a chunk has at least one input, not {chunk}")
    if isinstance(net := getattr(model, "net", None), nn.Module):
        check_evaluation_mode(net, "predict")
    check_inputs(x)


def _check_sites(model: Model, values: dict[str, Tensor]) -> None:
    lacking = [site for site in model.sites if site not in values]
    if lacking:
        raise ValueError(
            f"predict: the posterior has no draws of {lacking[0]!r}, which is random in the model; it has "
            f"{', '.join(values) or 'none'}"
        )


def _groups(
    first: dict[str, Tensor], rest: Iterator[dict[str, Tensor]], size: int
) -> Iterator[tuple[dict[str, Tensor], ...]]:
    group = (first, *islice(rest, size - 1))
    while group:
        yield group
        group = tuple(islice(rest, size))


def _outputs(
    model: Model, posterior: Posterior, some: tuple[dict[str, Tensor], ...], parts: list[Inputs], *, together: bool
) -> Tensor:
    """[draw, batch, ...] of a few draws."""
    if together:
        stacked = {name: torch.stack([one[name] for one in some]) for name in model.sites}
        passes = [map_draws(partial(model.outputs, x=part), stacked, vectorised=True) for part in parts]
        return torch.cat(passes, dim=1)
    (one,) = some
    if model.local:
        passes = [model.outputs({**one, **_local(model, posterior, one, part)}, part) for part in parts]
        return torch.cat(passes).unsqueeze(0)
    return model.outputs_of_chunks(one, parts).unsqueeze(0)


def _local(model: Model, posterior: Posterior, values: dict[str, Tensor], x: Inputs) -> dict[str, Tensor]:
    """Sites with one value an example, drawn with their inputs, given the
    global sites of the same draw.
    """
    known = {name: value for name, value in values.items() if name not in model.local}
    if not callable(posterior):
        raise TypeError(f"predict: {sorted(model.local)} belong to their inputs and need a guide, not a dict of draws")
    fresh = next(draw_each(poutine.condition(posterior, data=known), 1, x))
    lacking = sorted(model.local - fresh.keys())
    if lacking:
        raise ValueError(f"predict: the guide draws no {lacking[0]!r}, which the model has for every example")
    return {name: fresh[name] for name in model.local}
