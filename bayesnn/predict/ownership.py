"""Whether a posterior is one of the model that it is used with."""

from functools import partial
from typing import Any

import torch
from torch import nn

from bayesnn.functional import parameters


def own_model(posterior: Any) -> Any:
    """The model that a guide or an MCMC run was made of; None where it does not say."""
    try:
        model = getattr(getattr(posterior, "kernel", posterior), "model", None)
    except TypeError:  # a guide of Pyro's that was pickled or copied forgets its model, and so does the copied one
        return None
    while isinstance(model, partial) and model.args:  # Pyro's handlers, which its guides put around their models
        model = model.args[-1]
    return model


def check_model(model: Any, posterior: Any, caller: str) -> None:
    """Refuse a guide or an MCMC run of a model with other random entries, or around a network with other weights.

    Another prior or likelihood is no other model here. What does not say where it is from (draws, functions, guides of
    larger models) passes.

    Raises:
        ValueError: which site differs, and what to call instead.
    """
    own = own_model(posterior)
    if own is None or own is model or not (hasattr(own, "sites") and hasattr(model, "sites")):
        return
    difference = _difference(model, own)
    if difference:
        kind = type(posterior).__name__
        raise ValueError(
            f"{caller}: this {kind} is of another model: {difference}. Give its own model (`model` of a guide, of the "
            "kernel for MCMC), or the posterior of this one"
        )


def _difference(model: Any, own: Any) -> str:
    """The first one, in words; empty where there is none."""
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
    name = _other_weight(model, own)
    return f"{name!r} of the network, which is not random, has other values there" if name else ""


def _other_weight(model: Any, own: Any) -> str:
    """The first parameter that differs in entries that are not random; empty where there is none."""
    net, other = getattr(model, "net", None), getattr(own, "net", None)
    if net is other or not isinstance(net, nn.Module) or not isinstance(other, nn.Module):
        return ""
    ours = parameters(net)
    theirs = {name: value.to(ours[name]) for name, value in parameters(other).items() if name in ours}
    if subset := getattr(model, "subset", None):
        theirs |= subset.put(theirs, subset.take(net))
    return next((name for name in ours if name not in theirs or not torch.equal(theirs[name], ours[name])), "")
