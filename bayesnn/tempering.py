"""How a posterior was tempered: one rule for the weight of the KL divergence, and one note that goes with a posterior.

Two quantities, which are not the same:

- `kl_weight`, lambda: -ELBO = lambda KL(q || p) - E_q log p(y | w), whose best q is p(w) p(y | w)^(1 / lambda) up to a
  constant. The likelihood alone is tempered; Bayes' rule is 1.
- `temperature`, T, of a sampler: p(w | y)^(1 / T) = (p(w) p(y | w))^(1 / T) up to a constant. Likelihood and prior are
  tempered both; for a prior N(0, s^2) that is lambda = T under the prior N(0, T s^2).

A note is an attribute of a guide (a module or a function) or of a dict of draws, and a dict of numbers itself.
"""

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

_NOTE = "_bayesnn_tempering"  # in an attribute, which copies and pickles keep; by a name that no guide has itself
Value = TypeVar("Value")


def kl_weight(factor: float, model: object, *args: Any, **kwargs: Any) -> float | None:
    """The weight of KL(q || p) in -ELBO: the objective's own factor times the weight that the model states.

    The factor is 1 unless the user gave one. A model whose published posterior is tempered states its weight by a
    method `weight_of_kl(*args, **kwargs) -> float | None`, and scales its latent sites by it; other models state 1.

    Args:
        factor: of the objective, its `kl_weight`.
        model: the Pyro model.
        *args, **kwargs: those of a call of the model; without them the weight is that of all its training data.

    Returns:
        the weight; None where it depends on arguments that are not given.

    >>> kl_weight(0.1, lambda x, y: None)
    0.1
    """
    stated = getattr(model, "weight_of_kl", None)
    weight = 1.0 if stated is None else stated(*args, **kwargs)
    return None if weight is None else factor * weight


def of_density(model: object) -> dict[str, float]:
    """The note on whatever samples or approximates a model's density as it is: {"kl_weight": what the model states}.

    Empty for a model that states no weight.
    """
    weight = kl_weight(1.0, model) if hasattr(model, "weight_of_kl") else None
    return {} if weight is None else {"kl_weight": weight}


def note(holder: object, tempering: Mapping[str, float]) -> None:
    """Keep {"kl_weight": ...} or {"temperature": ...} on a guide, in place of what was kept; an empty one takes it off.

    A bound method or a plain dict takes no note.
    """
    held = getattr(holder, _NOTE, None)
    if held is not None:  # in place: a shallow copy, which shares parameters, shares what they were trained with
        held.clear()
        held.update(tempering)
        return
    with suppress(AttributeError):
        setattr(holder, _NOTE, dict(tempering))


def noted(holder: object) -> dict[str, float]:
    """What is kept on a guide or on a dict of draws; empty where nothing is.

    >>> from torch import nn
    >>> guide = nn.Linear(1, 1)
    >>> note(guide, {"kl_weight": 0.1})
    >>> noted(guide)
    {'kl_weight': 0.1}
    """
    return dict(getattr(holder, _NOTE, {}))


def noted_draws(draws: Mapping[str, Value], tempering: Mapping[str, float]) -> dict[str, Value]:
    """A dict of the same draws with a note on it, as `nn.Module.state_dict` has its metadata; plain where that is empty.

    `copy.copy`, pickles and `torch.load(weights_only=True)` keep the note, `predictive` and `to_arviz` take such a dict
    as any other. A dict that you make of its items is a plain one.

    >>> draws = noted_draws({"w": [0.3, 0.1]}, {"temperature": 0.5})
    >>> draws["w"], noted(draws)
    ([0.3, 0.1], {'temperature': 0.5})
    """
    if not tempering:
        return dict(draws)
    found = OrderedDict(draws)  # a dict takes no attribute
    note(found, tempering)
    return found
