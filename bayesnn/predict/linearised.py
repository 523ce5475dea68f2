"""The predictive of a network linearised in its weights: the GLM predictive of
Laplace approximations.
"""

from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Size, Tensor

from bayesnn.curvature.tangent import tangent
from bayesnn.functional import Inputs, check_evaluation_mode, chunks, map_draws, worth_vectorising
from bayesnn.functional.call import batch_size
from bayesnn.models import LinearisedGuide, is_flat_guide
from bayesnn.models.inputs import check_inputs
from bayesnn.predict.draw import Posterior, draw_each
from bayesnn.sites import from_vector


@torch.no_grad()
def linearised(posterior: Posterior, x: Inputs, draws: int = 100, *, joint: bool = False, chunk: int = 1000) -> Tensor:
    """Draws of f(x; m) + J(x) (w - m) with w from the guide, [draw, batch, out]; m is the guide's
    mean.

    By default draws are independent between examples, the marginal predictive of each: they come
    from the guide's `output_distribution(x)`, a normal distribution in closed form. With
    `joint=True` every draw is one function, with the same w at all inputs, so that outputs at
    different inputs covary as J Sigma J^T says: for quantities of several inputs at once (sums,
    maxima, contrasts, active learning in batches). It takes about four forward passes a draw and
    no Jacobian, whatever the guide's structure.

    Args:
        posterior: a guide.
        x: inputs of `batch` examples.
        draws: how many.
        joint: function draws.
        chunk: inputs in one pass, with `joint`.

    Raises:
        TypeError: the posterior offers no `output_distribution`; with `joint`, no mean of its
            `model`'s weights, `loc`.

    >>> from bayesnn import BNN, likelihoods, priors, subset
    >>> from bayesnn.guides import Laplace
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> guide = Laplace(model).fit([(torch.ones(3, 1), torch.zeros(3, 1))])
    >>> outputs = linearised(guide, torch.tensor([[1.0], [2.0]]), 3, joint=True)
    >>> torch.allclose(outputs[:, 1], 2 * outputs[:, 0])            # one line a draw
    True
    """
    if joint:
        return _functions(posterior, x, draws, chunk)
    guide: object = posterior
    if not isinstance(guide, LinearisedGuide):
        raise TypeError(
            f"linearised: {type(posterior).__name__} has no closed form of its outputs, output_distribution(x); use a "
            "guide that has (Laplace, MeanField), or predict(...)"
        )
    return guide.output_distribution(x).rsample(Size([draws]))


def _functions(posterior: Posterior, x: Inputs, draws: int, chunk: int) -> Tensor:
    model, mean = _mean(posterior)
    check_evaluation_mode(model.net, "linearised")
    check_inputs(x)
    parts = list(chunks(x, chunk))
    centre = model.outputs_of_chunks(mean, parts)
    numbers = sum(value.numel() for value in mean.values())
    group = draws if worth_vectorising(numbers * draws, batch_size(parts[0]), centre.device) else 1
    along = partial(tangent, model.outputs, mean)
    steps = (
        {site: value[site] - at for site, at in mean.items()}
        for value in draw_each(posterior, draws, parts[0], model=model)
    )
    outputs = []
    while some := list(islice(steps, group)):  # one draw in memory, or all where they are small
        stacked = {site: torch.stack([step[site] for step in some]) for site in mean}
        passes = [map_draws(partial(along, x=part), stacked, vectorised=group > 1) for part in parts]
        outputs.append(centre + torch.cat(passes, 1))
    return torch.cat(outputs)


def _mean(posterior: Posterior) -> tuple[Any, dict[str, Tensor]]:
    """The guide's model, and {site: mean} from the flat `loc`."""
    if not is_flat_guide(posterior):
        raise TypeError(
            f"linearised: joint=True needs a guide with a mean of exactly its model's weights, loc [param] and model; "
            f"{type(posterior).__name__} has none; use Laplace, a MeanField without latent scales, or predict(...)"
        )
    return posterior.model, from_vector(posterior.loc.detach(), posterior.model.sites)
