"""The one place where outputs meet targets."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Size, Tensor

from bayesnn.functional import alone
from bayesnn.handlers import plates_here, prefix_of, prefixed
from bayesnn.likelihoods import Likelihood
from bayesnn.models.checks import minibatch_scale
from bayesnn.models.each_draw import for_each_draw
from bayesnn.sites import base_of, latent_nodes


def observe(
    outputs: Tensor,
    likelihood: Likelihood,
    y: Tensor | None = None,
    *,
    size: int | None = None,
    name: str = "",
    plate: Any = None,
) -> Tensor:
    """sample("y", likelihood(outputs), obs=y) in a plate "data", its log density scaled by
    size / batch.

    Sites of the likelihood itself (a latent noise scale) are global: they are sampled before the
    plate opens.

    Args:
        outputs: [*draw, batch, ...].
        likelihood: outputs -> distribution of batch shape [*draw, batch].
        y: targets; None makes a latent site.
        size: examples in the training data; None = the batch is all of them.
        name: of the model, which prefixes sites and plate.
        plate: the plate "data" of a model that has opened it for local sites; Pyro makes a plate
            once.

    Raises:
        ValueError: y has another shape, type or range than the likelihood's, or is not finite (it
            says where); a batch larger than `size`.
    """
    plates = plates_here()
    lead = plates.lead if outputs.shape[: len(plates.lead)] == plates.lead else Size()
    distribution = _distribution(likelihood, outputs, name, plates.depth, lead)
    if not distribution.batch_shape:
        raise ValueError(f"likelihood: its distribution has no batch axis for outputs of shape {tuple(outputs.shape)}")
    batch = distribution.batch_shape[-1]
    if y is not None:
        check_target(distribution, y)
        # of a prediction, which may be of more than the training data, nothing is refused
        minibatch_scale(size, batch)
    prefix = prefix_of(name)
    scaled = poutine.scale(scale=size / batch) if size is not None else nullcontext()
    with pyro.plate(prefix + "data", batch, dim=-1) if plate is None else plate, scaled:
        return pyro.sample(prefix + "y", distribution, obs=y)


def likelihood_given(
    likelihood: Likelihood, outputs: Tensor, draws: Mapping[str, Tensor], *, name: str = ""
) -> dist.TorchDistribution:
    """The distribution of y with the likelihood's own latent sites at the values that the draws
    have.

    Args:
        likelihood: outputs -> distribution of batch shape [draw, batch].
        outputs: [draw, batch, ...].
        draws: {site: [draw, *event]}.
        name: of the model, which prefixes the sites.

    Raises:
        ValueError: the likelihood has a latent site that the draws lack: it would come from the
            prior, silently.
    """
    prefix = prefix_of(name)
    # Beside a data plate latent values have a batch axis of size 1:
    # [draw, *event] -> [draw, 1, *event].
    given = {site: value.unsqueeze(1) for site, value in draws.items() if site.startswith(prefix)}
    with alone(), poutine.trace() as traced, poutine.condition(data=given):
        distribution = _distribution(likelihood, outputs, name, 2, outputs.shape[:1])
    if lacking := list(latent_nodes(traced.trace.nodes)):
        raise ValueError(
            f"the likelihood has the latent site {lacking[0]!r}, which the draws lack; they have {', '.join(draws)}"
        )
    return distribution


def _distribution(likelihood: Likelihood, outputs: Tensor, name: str, depth: int, lead: Size) -> dist.TorchDistribution:
    """likelihood(outputs [*lead, batch, ...]); one whose own latent sites are not aligned is
    called draw by draw.
    """

    def make(draw: int | None) -> Any:
        with prefixed(name):
            whole = draw is None or not lead
            return likelihood(outputs if whole else outputs.reshape((-1, *outputs.shape[len(lead) :]))[draw])

    return for_each_draw(make, depth, Size((*lead, 1)) if lead else lead)


def check_target(distribution: dist.TorchDistribution, y: Tensor) -> None:
    """Refuse targets that the likelihood's distribution cannot have produced;
    says what is wrong and where.
    """
    if not isinstance(y, Tensor):
        raise TypeError(f"y must be a tensor, not {type(y).__name__}")
    expected = distribution.batch_shape[-1:] + distribution.event_shape
    if y.shape != expected:
        hint = ""
        if y.numel() == expected.numel():
            hint = f"; write y.reshape({', '.join(map(str, (-1, *expected[1:])))})"
        raise ValueError(
            f"y has shape {tuple(y.shape)}, but the likelihood of these outputs needs {tuple(expected)}{hint}"
        )
    base = base_of(distribution, dist.MaskedDistribution, dist.ExpandedDistribution)
    if isinstance(base, dist.Categorical):
        _check_labels(y, base.logits.shape[-1])
    elif not y.dtype.is_floating_point:
        raise ValueError(f"y is {y.dtype}, but {type(base).__name__} needs floating point; write y.float()")
    elif not torch.isfinite(y).all():
        raise ValueError(f"y is not finite at index {_first(~torch.isfinite(y))}")
    elif base.support is not None and not (inside := base.support.check(y)).all():
        where = _first(~inside)
        raise ValueError(f"y at index {where} is {y[tuple(where)].tolist()}, outside the support {base.support}")


def _check_labels(y: Tensor, classes: int) -> None:
    if y.dtype.is_floating_point or y.dtype == torch.bool or y.dtype.is_complex:
        raise ValueError(f"y is {y.dtype}, but labels are integers; write y.long()")
    outside = (y < 0) | (y >= classes)
    if outside.any():
        where = _first(outside)
        raise ValueError(
            f"y at index {where} is {int(y[tuple(where)])}, but the network has {classes} outputs, for labels 0 to "
            f"{classes - 1}"
        )


def _first(mask: Tensor) -> list[int]:
    return [int(i) for i in mask.nonzero()[0]]
