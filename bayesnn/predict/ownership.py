"""Find the model of a posterior, and check whether the posterior can be used with another."""

from functools import partial
from typing import Any

import torch
from torch import nn

from bayesnn.functional import parameters
from bayesnn.models.bnn import described
from bayesnn.models.protocol import Model, OfModel, is_model
from bayesnn.predict.equality import equal

REMEDY = "leave out model=, which is then the posterior's own, or give the posterior of this model"


def own_model(posterior: Any) -> Any:
    """The model of a guide, an MCMC run or draws, without Pyro's handlers.

    It is None if the posterior does not say. Of a list of posteriors it is that of the first.
    """
    if isinstance(posterior, (list, tuple)) or type(posterior) is nn.ModuleList:
        return own_model(posterior[0]) if len(posterior) else None
    holder = getattr(posterior, "kernel", posterior)  # of an `MCMC`
    try:
        model = holder.model if isinstance(holder, OfModel) else None
    except TypeError:
        # a guide of Pyro's that was pickled or copied forgets its model, and so does the copied
        # one
        return None
    # Pyro's handlers, which its guides put around their models
    while isinstance(model, partial) and model.args:
        model = model.args[-1]
    return model


def model_for(posterior: Any, model: Any, caller: str, *args: Any) -> Any:
    """The given model, if it can be that of the posterior; without one, the posterior's own.

    Both may be any Pyro model.

    Args:
        posterior: what draws come from.
        model: what the user gave; None = the posterior's own.
        caller: the function that the user called, and whose name errors begin with.
        *args: what the user gave after the posterior: inputs, or the arguments of a call of the
            model.

    Raises:
        TypeError: a model in the place of the posterior, a posterior in that of the inputs or of
            the model; no model given for a posterior that does not know its own.
        ValueError: as `check_model`.
    """
    if is_model(posterior):
        raise TypeError(
            f"{caller}: the posterior comes first, but a {type(posterior).__name__} is a model; its place is the "
            f"keyword model=, {caller}(posterior, ..., model=model). Draws from the prior are those of model.sample"
        )
    own = own_model(posterior)
    if args and (is_model(args[0]) or (own is not None and args[0] is own)):
        raise TypeError(
            f"{caller}: after the posterior comes no model, but here a {type(args[0]).__name__}; its place is the "
            f"keyword model=, {caller}(posterior, ..., model=model), and guides and MCMC runs know theirs without it"
        )
    if model is None:
        if own is None:
            raise TypeError(
                f"{caller}: this {type(posterior).__name__} does not say which model it is of; the posterior comes "
                f"first, and with one that does not know its model give it, {caller}(posterior, ..., model=model)"
            )
        return own
    if model is posterior or (own is not None and own_model(model) is own):
        raise TypeError(
            f"{caller}: model= takes the model, but this {type(model).__name__} is a posterior; leave out model=, or "
            "give the posterior's own, `model` of a guide"
        )
    check_model(model, posterior, caller)
    return model


def network_model_for(posterior: Any, model: Any, caller: str, *args: Any) -> Model:
    """As `model_for`, where a model of `bayesnn.models` is needed.

    Raises:
        TypeError: another Pyro model too.
        ValueError: as `check_model`.
    """
    network_model = model_for(posterior, model, caller, *args)
    if not is_model(network_model):
        whose = "the model of this " + type(posterior).__name__ if model is None else "model="
        raise TypeError(
            f"{caller}: {whose} is a Pyro model without the outputs of one network; give that network's model, a model "
            f"of bayesnn.models, {caller}(posterior, ..., model=model)"
        )
    return network_model


def check_model(model: Any, posterior: Any, caller: str) -> None:
    """Refuse a posterior of another model: other sites, fixed weights, prior or likelihood.

    Priors and likelihoods that were made twice from the same parts are equal. What does not say
    where it is from (a dict of draws, functions, guides of larger models) passes.

    Raises:
        ValueError: what differs, and what to do instead.
    """
    own = own_model(posterior)
    if own is model or not is_model(own) or not is_model(model):
        return
    if difference := _difference(model, own):
        raise ValueError(f"{caller}: this {type(posterior).__name__} is of another model: {difference}; {REMEDY}")


def _difference(model: Any, own: Any) -> str:
    """The first difference, in words; empty if there is none."""
    ours, theirs = dict(model.sites), dict(own.sites)
    for site in [*ours, *theirs]:
        if site not in theirs:
            return f"{site!r} is random here, but not there, where the sites are {', '.join(theirs)}"
        if site not in ours:
            return f"{site!r} is random there, but not here, where the sites are {', '.join(ours)}"
        if ours[site] != theirs[site]:
            return f"{site!r} has shape {tuple(ours[site])} here and {tuple(theirs[site])} there"
    subset, other = getattr(model, "subset", None), getattr(own, "subset", None)
    if subset is not other and subset is not None and other is not None and subset.fingerprint() != other.fingerprint():
        return "the random entries have other places, or the rest of the network other shapes (see model.subset)"
    if name := _other_weight(model, own):
        return f"{name!r} of the network, which is not random, has other values there"
    for part in ("likelihood", "prior", "priors"):
        here, there = getattr(model, part, None), getattr(own, part, None)
        if not equal(here, there):
            here, there = described(here), described(there)
            return f"its {part} is {there} there and {here if here != there else 'another one'} here"
    return ""


def _other_weight(model: Any, own: Any) -> str:
    """The first parameter that differs in entries that are not random; empty
    where there is none.
    """
    net, other = getattr(model, "net", None), getattr(own, "net", None)
    if net is other or not isinstance(net, nn.Module) or not isinstance(other, nn.Module):
        return ""
    ours = parameters(net)
    theirs = {name: value.to(ours[name]) for name, value in parameters(other).items() if name in ours}
    if subset := getattr(model, "subset", None):
        theirs |= subset.put(theirs, subset.take(net))
    return next((name for name in ours if name not in theirs or not torch.equal(theirs[name], ours[name])), "")
