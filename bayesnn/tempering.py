"""The tempering of a posterior: the weight of the KL divergence, and a note that stays with it.

Two quantities, which are not the same:

- `kl_weight`, lambda: -ELBO = lambda KL(q || p) - E_q log p(y | w), whose best q is
  p(w) p(y | w)^(1 / lambda) up to a constant. The likelihood alone is tempered; Bayes' rule is 1.
- `temperature`, T, of a sampler: p(w | y)^(1 / T), that is (p(w) p(y | w))^(1 / T) up to a
  constant. Likelihood and prior are tempered both; for a prior N(0, s^2) that is lambda = T under
  the prior N(0, T s^2).

The note is an attribute, a dict of numbers, of a guide (a module or a function) or a dict of
draws.
"""

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

_NOTE = "_bayesnn_tempering"  # in an attribute, which copies and pickles keep
Value = TypeVar("Value")


def kl_weight(factor: float, model: object, *args: Any, **kwargs: Any) -> float | None:
    """The weight of KL(q || p) in -ELBO: the objective's factor times the weight of the model.

    The factor is 1 unless the user gave one. A model whose published posterior is tempered states
    its weight by a method `weight_of_kl(*args, **kwargs) -> float | None`, and scales its latent
    sites by it; the weight of all others is 1.

    Args:
        factor: the `kl_weight` of the objective.
        model: the Pyro model.
        *args: of a call of the model; without them the weight is that of all its training data.
        **kwargs: of that call.

    Returns:
        the weight; None where it depends on arguments that are not given.

    >>> from bayesnn import likelihoods
    >>> from bayesnn.models import LatentHead
    >>> model = LatentHead(4, 10, likelihoods.categorical)
    >>> kl_weight(1.0, model), kl_weight(0.5, model), kl_weight(0.5, lambda x, y: None)
    (0.25, 0.125, 0.5)
    """
    stated = getattr(model, "weight_of_kl", None)
    weight = 1.0 if stated is None else stated(*args, **kwargs)
    return None if weight is None else factor * weight


def of_model(model: object) -> dict[str, float]:
    """The note on a guide that an ELBO of Pyro's trains: {"kl_weight": what the model states}.

    Empty for a model that states nothing.
    """
    return of_weight(kl_weight(1.0, model)) if hasattr(model, "weight_of_kl") else {}


def of_sampler(model: object, temperature: float | None = None) -> dict[str, float]:
    """The note on draws from the density of a model to the power 1 / temperature.

    Where the model states a weight, lambda, its density is p(w)^lambda p(y | w): the posterior of
    that weight, p(w) p(y | w)^(1 / lambda), at the temperature 1 / lambda.

    Args:
        model: the Pyro model.
        temperature: of the sampler; None for one that has none, such as NUTS, and is not to be
            said where the model states nothing.
    """
    weight = of_model(model).get("kl_weight")
    if not weight:
        return {} if temperature is None else {"temperature": temperature}
    return {"kl_weight": weight, "temperature": (1.0 if temperature is None else temperature) / weight}


def of_weight(weight: float | None) -> dict[str, float]:
    """The note {"kl_weight": weight}; empty for None."""
    return {} if weight is None else {"kl_weight": weight}


def note(holder: object, tempering: Mapping[str, float]) -> None:
    """Keep {"kl_weight": ...} or {"temperature": ...} on a guide, in the place of an earlier note.

    A bound method or a plain dict takes no note.
    """
    held = getattr(holder, _NOTE, None)
    if held is not None:  # in place: shallow copies share parameters, and so what trained them
        held.clear()
        held.update(tempering)
        return
    with suppress(AttributeError):
        setattr(holder, _NOTE, dict(tempering))


def noted(holder: object) -> dict[str, float]:
    """The note kept on a guide or on a dict of draws; empty if there is none.

    >>> from torch import nn
    >>> guide = nn.Linear(1, 1)
    >>> note(guide, {"kl_weight": 0.1})
    >>> noted(guide)
    {'kl_weight': 0.1}
    """
    return dict(getattr(holder, _NOTE, {}))


def noted_draws(draws: Mapping[str, Value], tempering: Mapping[str, float]) -> dict[str, Value]:
    """A dict of the same draws that carries a note, as `state_dict` carries its metadata.

    `copy.copy`, pickles and `torch.load(weights_only=True)` keep the note; `predictive` and
    `to_arviz` take such a dict as any other. A dict made of its items is a plain one, and says
    nothing. Without a note the result is a plain dict.

    Args:
        draws: {site: [draw, *event]}.
        tempering: {"kl_weight": ...}, {"temperature": ...} or both.

    >>> draws = noted_draws({"w": [0.3, 0.1]}, {"temperature": 0.5})
    >>> draws["w"], noted(draws), noted({**draws})
    ([0.3, 0.1], {'temperature': 0.5}, {})
    """
    if not tempering:
        return dict(draws)
    ordered = OrderedDict(draws)  # a dict itself takes no attribute
    note(ordered, tempering)
    return ordered
