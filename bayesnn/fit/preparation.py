"""Before the first step: lazy parameters are made, then grouped for the optimiser."""

import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bayesnn.fit.batches import call, device_of, first_batch, move
from bayesnn.fit.checks import causes, explain
from bayesnn.fit.randomness import capture, generators_of, restore
from bayesnn.functional import alone

Options: TypeAlias = Mapping[str, Any]
OptimizerFactory: TypeAlias = Callable[[list[dict[str, Any]]], Optimizer]
Groups: TypeAlias = Callable[[str, nn.Parameter], Options]
Schedule: TypeAlias = Callable[[Optimizer], LRScheduler]


def warm_up(loss: nn.Module, loader: Iterable[Any]) -> list[str]:
    """Call the loss once on the first batch, so that lazy parameters exist; random states and
    buffers are put back.

    Returns:
        the names of the buffers that a call changes.
    """
    generators = generators_of(loader)
    before = capture(generators)
    buffers = {name: value.clone() for name, value in loss.named_buffers() if not is_lazy(value)}
    try:
        batch = move(first_batch(loader), device_of(loss))
        try:
            with alone(), torch.no_grad():
                call(loss, batch)
        except Exception as error:
            made = {name: value for name, value in loss.named_parameters() if not is_lazy(value)}
            if faults := causes(batch, made):
                raise explain("the loss cannot be computed on the first batch", faults) from error
            raise
    finally:
        restore(before, generators)
    moving = []
    for name, value in loss.named_buffers():
        if name in buffers and not torch.equal(value, buffers[name]):
            moving.append(name)
            value.copy_(buffers[name])
    return moving


def trainable(loss: nn.Module) -> dict[str, nn.Parameter]:
    """The loss's parameters that want gradients, by name; an error if there is none."""
    trained = {name: parameter for name, parameter in loss.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ValueError(
            "fit: the loss has no trainable parameter; what is learned must be an nn.Parameter of the loss module (of "
            "the model or the guide), with requires_grad=True; a network held by the model is not trained"
        )
    return trained


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], factory: OptimizerFactory, groups: Groups | None
) -> Optimizer:
    """The optimiser over groups of parameters that have the same options.

    Raises:
        ValueError: an option that the optimiser lacks, a learning rate that is not positive.
        TypeError: options that are no dict; a factory that makes no optimiser.
    """
    collected: list[tuple[dict[str, Any], list[nn.Parameter]]] = []
    for name, parameter in parameters.items():
        options = groups(name, parameter) if groups is not None else {}
        if not isinstance(options, Mapping):
            raise TypeError(
                f"fit: groups must return a dict of optimiser options, such as {{'lr': 1e-2}} or {{}}; for {name!r} it "
                f"returned {options!r}"
            )
        members = next((members for others, members in collected if others == options), None)
        if members is None:
            collected.append((dict(options), members := []))
        members.append(parameter)
    optimizer = factory([{"params": members, **options} for options, members in collected])
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"fit: optimizer must make a torch optimiser from parameter groups, such as torch.optim.Adam or "
            f"partial(torch.optim.Adam, lr=1e-2); it made a {type(optimizer).__name__}"
        )
    for options, members in collected:
        name = next(name for name, parameter in parameters.items() if parameter is members[0])
        _check_options(name, options, optimizer)
    return optimizer


def _check_options(name: str, options: Options, optimizer: Optimizer) -> None:
    """Refuse what torch would keep and ignore, and a learning rate that is not positive."""
    known = optimizer.defaults
    if known and (unknown := options.keys() - known.keys() - {"initial_lr"}):
        kind, wrong = type(optimizer).__name__, sorted(unknown)[0]
        near = get_close_matches(wrong, known, 1) or (["lr"] if "rate" in wrong and "lr" in known else [])
        meant = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(
            f"fit: groups gives {name!r} the option {wrong!r}, which {kind} does not have{meant} Its options are "
            f"{', '.join(known)}"
        )
    if "lr" in options and not 0 < float(options["lr"]) < math.inf:
        raise ValueError(
            f"fit: groups gives {name!r} the learning rate {options['lr']!r}, but it is a positive number; to keep a "
            f"parameter as it is, set its requires_grad to False"
        )


def make_schedule(optimizer: Optimizer, schedule: Schedule | None) -> LRScheduler | None:
    """The schedule of this optimiser, if there is one."""
    made = None if schedule is None else schedule(optimizer)
    if isinstance(made, ReduceLROnPlateau) or (schedule is not None and not isinstance(made, LRScheduler)):
        raise TypeError(
            f"fit: schedule must make a torch LRScheduler that steps without a metric, such as "
            f"lambda optimizer: CosineAnnealingLR(optimizer, steps); it made a {type(made).__name__}"
        )
    return made
