"""Predictions of a frozen source on the link scale, checked."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from bayesnn.functional import Inputs, call, check_evaluation_mode
from bayesnn.models.inputs import check_inputs
from bayesnn.models.recast.source_draws import SourceDraws

Source: TypeAlias = "nn.Module | Callable[[Any], Tensor] | None"
"""x -> f on the link scale, [batch] or [batch, 1], logits [batch, class] for labels; None
where x is f itself.
"""


def check_source(source: Source, caller: str) -> None:
    """Refuse a network that is not frozen.

    Raises:
        ValueError: training mode, or parameters with gradients.
        TypeError: nothing that can be called.
    """
    if isinstance(source, nn.Module):
        check_evaluation_mode(source, caller)
        trained = [name for name, parameter in source.named_parameters() if parameter.requires_grad]
        if trained:
            raise ValueError(
                f"{caller}: the source is fixed, but its parameter {trained[0]!r} has gradients on; call "
                "source.requires_grad_(False)"
            )
    elif isinstance(source, Tensor):
        raise TypeError(
            f"{caller}: predictions of the source belong to their examples: give source=None and the predictions in "
            "the place of x"
        )
    elif source is not None and not callable(source):
        raise TypeError(f"{caller}: the source is a network, a function or None, not {type(source).__name__}")


def predictions(source: Source, link: Callable[[Tensor], Tensor] | None, x: Inputs, caller: str) -> Tensor:
    """f [batch] in double precision, of a source of one output; [batch, draw] of a `SourceDraws`.

    Raises:
        ValueError: predictions that are not finite (it says where), or of more than one output.
    """
    return checked(source, link, x, one_each, caller)


def checked(
    source: Source,
    link: Callable[[Tensor], Tensor] | None,
    x: Inputs,
    shaped: Callable[[Tensor, int, str], Tensor],
    caller: str,
) -> Tensor:
    """f [batch, ...] or, of a `SourceDraws`, [batch, draw, ...], as `shaped`
    gives and refuses its last axes.
    """
    check_inputs(x)
    with torch.no_grad():
        if isinstance(source, nn.Module):
            f = call(source, {}, x)
        else:
            f = torch.as_tensor(x if source is None else source(x))
        f = f.detach().double()
        f = f if link is None else link(f)
    leading = 1
    if isinstance(source, SourceDraws):
        f, leading = f.movedim(0, 1), 2
    if f.dim() >= leading and not bool(f.isfinite().all()):
        at = [int(i) for i in (~f.isfinite()).nonzero()[0]]
        hint = "; a probability of 0 or 1 has no logit: give the source's logits" if link is not None else ""
        raise ValueError(f"{caller}: the source's prediction of example {at[0]} is {f[tuple(at)].item()}{hint}")
    return shaped(f, leading, caller)


def one_each(f: Tensor, leading: int, caller: str) -> Tensor:
    """[batch] or [batch, draw]: one prediction an example.

    Raises:
        ValueError: another shape.
    """
    if f.dim() == leading + 1 and f.shape[-1] == 1:
        f = f.squeeze(-1)
    if f.dim() != leading:
        raise ValueError(
            f"{caller}: the source must give one prediction for each example, [batch] or [batch, 1], not "
            f"{tuple(f.shape)}"
        )
    return f


def centred_logits(f: Tensor, leading: int, caller: str) -> Tensor:
    """Logits minus their mean over classes, [batch, class] or [batch, draw, class].

    Raises:
        ValueError: another shape, or fewer than two classes.
    """
    if f.dim() != leading + 1 or f.shape[-1] < 2:
        raise ValueError(
            f"{caller}: the source must give one logit for each class, [batch, class] with two classes or more, not "
            f"{tuple(f.shape)}"
        )
    return f - f.mean(-1, keepdim=True)
