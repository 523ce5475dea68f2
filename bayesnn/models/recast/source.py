"""Predictions of a frozen source on the link scale, checked."""

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from bayesnn.functional import Inputs, call, check_evaluation_mode
from bayesnn.models.bnn import check_inputs

Source: TypeAlias = "nn.Module | Callable[[Any], Tensor] | None"
"""x -> f [batch] or [batch, 1] on the link scale; None where x is f itself."""


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
    """f [batch] in double precision.

    Raises:
        ValueError: predictions that are not finite (it says where), or of more than one output.
    """
    check_inputs(x)
    with torch.no_grad():
        if isinstance(source, nn.Module):
            f = call(source, {}, x)
        else:
            f = torch.as_tensor(x if source is None else source(x))
        f = f.detach().double()
        f = f if link is None else link(f)
    if f.dim() == 2 and f.shape[1] == 1:
        f = f.squeeze(1)
    if f.dim() != 1:
        raise ValueError(
            f"{caller}: the source must give one prediction for each example, [batch] or [batch, 1], not "
            f"{tuple(f.shape)}"
        )
    if not bool(f.isfinite().all()):
        at = int((~f.isfinite()).nonzero()[0])
        hint = "; a probability of 0 or 1 has no logit: give the source's logits" if link is not None else ""
        raise ValueError(f"{caller}: the source's prediction of example {at} is {f[at].item()}{hint}")
    return f


def check_training_predictions(f: Tensor, *, probabilities: bool, caller: str) -> None:
    """Refuse predictions from which the effect cannot be learned; warn of such as look like probabilities.

    Raises:
        ValueError: fewer than three, all zero, or constant.

    Warns:
        UserWarning: all in [0, 1] where logits were asked for (`probabilities`).
    """
    if len(f) < 3:
        raise ValueError(f"{caller}: {len(f)} target examples are too few; at least 3 are needed")
    if bool((f == 0).all()):
        raise ValueError(f"{caller}: the source predicts 0 on the link scale for every example; nothing scales")
    if bool((f == f[0]).all()):
        raise ValueError(
            f"{caller}: the source predicts {f[0].item():g} for every example; the random effect cannot be told from "
            "noise then"
        )
    if probabilities and bool(((f >= 0) & (f <= 1)).all()) and len(f) >= 10:
        warnings.warn(
            f"{caller}: all predictions of the source lie between 0 and 1, which looks like probabilities; on the link "
            "scale they would be logits. Give link=torch.logit",
            stacklevel=3,
        )
