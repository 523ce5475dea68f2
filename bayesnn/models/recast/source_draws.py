"""A source that is itself uncertain: draws of its predictions."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bayesnn.functional import Inputs
from bayesnn.models.protocol import Model


class SourceDraws:
    """f_s(x), s = 1 ... S: draws of a Bayesian source's predictions, as the source of a RECaST
    model.

        s ~ Uniform{1 ... S}; y_i ~ RECaST with f_i = f_s(x_i), one s for all examples

    The target's data then weigh the draws, p(s | y, numbers) proportional to prod_i
    p(y_i | f_s(x_i), numbers): the model sums over s exactly, and its posterior has a draw of s,
    site "source", beside every draw of the numbers. This is importance sampling from the source's
    posterior. Where the target's data say much of the source, few draws bear all weight, whatever
    their number: see `recast.source_weights` and `CorrectedDraws.effective_sources`.

    Not in the RECaST paper, whose source is one fixed function: our extension.

    Args:
        function: x -> [draw, batch], [draw, batch, 1] or, for labels, [draw, batch, class], on the
            source's own scale; the same draws at every call.
        count: S, two or more.

    Raises:
        ValueError: fewer than two draws, or a function that gives another number of them.

    >>> slopes = torch.tensor([0.8, 1.0, 1.3])
    >>> source = SourceDraws(lambda x: slopes.unsqueeze(1) * x, count=3)
    >>> source(torch.ones(5)).shape
    torch.Size([3, 5])
    """

    def __init__(self, function: Callable[[Any], Tensor], count: int) -> None:
        if count != int(count) or count < 2:
            raise ValueError(
                f"SourceDraws: {count} draws of the source say nothing of its uncertainty; give two or more, or the "
                "source itself"
            )
        self.function, self.count = function, int(count)

    @classmethod
    def of_model(cls, model: Model, draws: Mapping[str, Tensor]) -> "SourceDraws":
        """The outputs of a model of bayesnn at draws of its posterior, {site: [draw, *event]}.

        Raises:
            ValueError: a site that the draws lack, or fewer than two draws.
        """
        lacking = [site for site in model.sites if site not in draws]
        if lacking:
            raise ValueError(f"SourceDraws: there are no draws of {lacking[0]!r}, which is random in the model")
        own = {site: draws[site].detach() for site in model.sites}
        return cls(partial(_outputs, model, own), len(next(iter(own.values()))))

    @classmethod
    def given(cls, count: int) -> "SourceDraws":
        """A source for which x is the draws of its predictions.

        They have shape [batch, draw] or [batch, draw, class].
        """
        return cls(_draws_first, count)

    def __call__(self, x: Inputs) -> Tensor:
        """The predictions, [draw, batch, ...]."""
        f = torch.as_tensor(self.function(x))
        if f.dim() < 2 or len(f) != self.count:
            raise ValueError(
                f"SourceDraws: the function must give {self.count} draws, [draw, batch, ...], not {tuple(f.shape)}"
            )
        return f


def _outputs(model: Model, draws: Mapping[str, Tensor], x: Inputs) -> Tensor:
    count = len(next(iter(draws.values())))
    return torch.stack([model.outputs({site: value[s] for site, value in draws.items()}, x) for s in range(count)])


def _draws_first(x: Inputs) -> Tensor:
    return torch.as_tensor(x).movedim(1, 0)
