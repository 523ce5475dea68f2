"""The posterior of the index of an uncertain source's draws."""

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesnn.handlers import prefix_of
from bayesnn.models.recast.model import RECaST, log_likelihoods_of_sources


def source_weights(model: RECaST, values: Mapping[str, Tensor], f: Tensor, y: Tensor) -> Tensor:
    """p(source = s | y, values), [*draw, S]: the posterior of the source's index.

    With w their mean over draws of the numbers, 1 / sum_s w_s^2 is the effective number of the
    source's draws.

    Args:
        model: RECaST.
        values: {site: [*draw]} of the numbers, double.
        f: predictions [batch, draw, ...], as `model.predictions(x)` gives them.
        y: targets [batch].

    >>> from bayesnn.models import recast
    >>> model = recast.continuous(recast.SourceDraws.given(2))
    >>> values = {"delta": torch.ones(1), "log_gamma": torch.tensor([-2.0]), "log_sigma": torch.tensor([-2.0])}
    >>> f = torch.tensor([[1.0, 5.0], [2.0, -5.0]])                 # two examples, two draws of the source
    >>> source_weights(model, {n: v.double() for n, v in values.items()}, f.double(), torch.tensor([1.0, 2.0])).round()
    tensor([[1., 0.]], dtype=torch.float64)
    """
    return log_likelihoods_of_sources(model, values, f, y).softmax(-1)


def with_source(
    model: RECaST, values: Mapping[str, Tensor], f: Tensor, y: Tensor, *, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Draws of the numbers, each with an exact draw of the uncertain source's index; the numbers
    alone otherwise.

    Arguments as of `source_weights`; values are [draw].
    """
    if model.source_count == 1:
        return dict(values)
    step = max(1, 500 // model.source_count)
    parts = zip(*(values[site].split(step) for site in model.number_sites), strict=True)
    named = (dict(zip(model.number_sites, part, strict=True)) for part in parts)
    with torch.no_grad():
        weights = torch.cat([source_weights(model, part, f, y) for part in named])
    index = torch.multinomial(weights, 1, generator=generator).squeeze(-1)
    return {**values, prefix_of(model.name) + "source": index}
